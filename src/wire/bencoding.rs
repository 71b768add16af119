//! The few shapes of bencode that extension messages are made of.

pub(super) use crate::base::bencode::{integer, put_integer, put_string, string};
