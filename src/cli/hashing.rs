//! Hashing the files of a torrent to be.

use std::path::PathBuf;

use super::args::OutputOptions;
use super::exit::Failure;
use crate::metainfo::Plan;

pub(super) struct Hashes {
    pub(super) v1: Vec<[u8; 20]>,
    pub(super) v2: Vec<[u8; 32]>,
}

pub(super) fn hash(
    plan: &Plan,
    paths: &[PathBuf],
    threads: Option<u16>,
    output: &OutputOptions,
) -> Result<Hashes, Failure> {
    let _ = (plan, paths, threads, output);
    Ok(Hashes { v1: vec![], v2: vec![] })
}
