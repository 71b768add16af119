//! Which connections with peers are encrypted.

use crate::wire::mse::Method;

/// Which connections with peers are encrypted, by Message Stream Encryption. Whatever is chosen, torrents are checked
/// against their hashes; what encryption hides is that and what is transferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// None.
    Off,
    /// Those with peers that insist on it: others are dialled and answered as they like it. The default.
    #[default]
    Allow,
    /// All that can be: peers are dialled with encryption first.
    Prefer,
    /// All, with RC4. Nothing is ever said in the clear.
    Require,
}

/// How a peer that was dialled is greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    Plain,
    /// Encrypted, offering these methods.
    Encrypted(&'static [Method]),
}

const RC4: &[Method] = &[Method::Rc4];

impl Encryption {
    /// How peers are greeted: if they do not like the first, the second is tried on a new connection.
    pub(super) fn greetings(self) -> &'static [Greeting] {
        const EITHER: &[Method] = &[Method::Plaintext, Method::Rc4];
        match self {
            Self::Off => &[Greeting::Plain],
            Self::Allow => &[Greeting::Plain, Greeting::Encrypted(EITHER)],
            // Those who are offered both often choose not to encrypt.
            Self::Prefer => &[Greeting::Encrypted(RC4), Greeting::Plain],
            Self::Require => &[Greeting::Encrypted(RC4)],
        }
    }

    /// Whether peers that dial us may speak in the clear.
    pub(super) fn admits_plain(self) -> bool {
        self != Self::Require
    }

    /// The methods that peers may choose from when they dial us, the best first.
    pub(super) fn accepted(self) -> &'static [Method] {
        match self {
            Self::Off => &[],
            Self::Allow => &[Method::Plaintext, Method::Rc4],
            Self::Prefer => &[Method::Rc4, Method::Plaintext],
            Self::Require => RC4,
        }
    }
}
