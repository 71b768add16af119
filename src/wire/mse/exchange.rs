use std::mem::{replace, take};

use super::key_exchange::{Power, PrivateKey, Raised};
use super::{Ciphers, Entropy, KEY_LEN, MAX_PAD, Method, MseError, Secured, VC, torrent_mark, xor};
use crate::hash::sha1;
use crate::wire::Handshake;

/// Bytes of IA: a [`Handshake`].
const PAYLOAD_LEN: u16 = 68;

/// One side of the handshake.
///
/// [`poll`](Self::poll) says what is to be done next, again and again until it says [`Step::Done`]. Whatever comes, what
/// is kept of it is not more than a pad and what one call of [`handle_bytes`](Self::handle_bytes) brought, or, once the
/// other side has shown that it knows the torrent, 64 KiB of initial payload.
#[derive(Debug)]
pub struct Exchange {
    role: Role,
    /// What may be offered, or accepted: then the best first.
    methods: &'static [Method],
    entropy: Entropy,
    exponent: PrivateKey,
    stage: Stage,
    /// What came and was not looked at.
    pub(super) received: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Send(Vec<u8>),
    /// Read something, for [`Exchange::handle_bytes`].
    Read,
    /// Compute this, for [`Exchange::handle_raised`].
    Compute(Power),
    /// Look for the torrent with this [mark](torrent_mark), for [`Exchange::handle_torrent`].
    Find([u8; 20]),
    /// Nothing: it has succeeded.
    Done(Secured),
}

#[derive(Debug)]
enum Role {
    /// A. The torrent, and what is sent as IA.
    Dials(Handshake),
    /// B.
    Answers,
}

#[derive(Debug)]
enum Stage {
    /// Our public key is wanted; B has theirs by then.
    OwnKey(Option<[u8; KEY_LEN]>),
    /// Theirs is.
    TheirKey,
    /// The secret is.
    Secret([u8; KEY_LEN]),
    /// A looks for the encrypted VC.
    SeekVc(Box<Ciphers>, [u8; VC.len()]),
    Select(Box<Ciphers>),
    /// A passes over this much of PadD.
    PadD(Box<Ciphers>, Method, usize),
    /// B looks for HASH('req1', S).
    SeekHash([u8; KEY_LEN]),
    Mark([u8; KEY_LEN]),
    /// B wants to know whose mark it is.
    Torrent([u8; KEY_LEN], [u8; 20]),
    Provide(Box<Ciphers>, [u8; 20]),
    /// B passes over this much of PadC.
    PadC(Box<Ciphers>, [u8; 20], Method, usize),
    Payload(Box<Ciphers>, [u8; 20], Method, usize),
    Done(Box<Ciphers>, [u8; 20], Method, Vec<u8>),
    Over,
}

impl Exchange {
    /// Dials: offers `methods`, and sends `handshake` as soon as it can be encrypted, for the torrent that it names.
    pub fn dial(entropy: Entropy, handshake: Handshake, methods: &'static [Method]) -> Self {
        Self::new(entropy, Role::Dials(handshake), methods, Stage::OwnKey(None))
    }

    /// Answers, and of what is offered selects the first of `methods`. Until the other side's key is there nothing is
    /// computed.
    pub fn answer(entropy: Entropy, methods: &'static [Method]) -> Self {
        Self::new(entropy, Role::Answers, methods, Stage::TheirKey)
    }

    fn new(entropy: Entropy, role: Role, methods: &'static [Method], stage: Stage) -> Self {
        let exponent = PrivateKey::new(entropy.exponent());
        Self { role, methods, entropy, exponent, stage, received: Vec::new(), out: Vec::new() }
    }

    /// `bytes` came.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// What [`Step::Compute`] asked for.
    ///
    /// # Errors
    /// [`MseError::Key`]
    pub fn handle_raised(&mut self, Raised(power): Raised) -> Result<(), MseError> {
        let stage = replace(&mut self.stage, Stage::Over);
        let power = power.ok_or(MseError::Key)?;
        self.stage = match (stage, &self.role) {
            (Stage::OwnKey(theirs), _) => {
                self.out.extend_from_slice(&power);
                self.out.extend_from_slice(self.entropy.pad());
                theirs.map_or(Stage::TheirKey, Stage::Secret)
            }
            (Stage::Secret(_), Role::Answers) => Stage::SeekHash(power),
            (Stage::Secret(_), Role::Dials(handshake)) => {
                let handshake = *handshake;
                self.send_request(&power, &handshake)
            }
            (stage, _) => {
                debug_assert!(false, "nothing was to be computed");
                stage
            }
        };
        Ok(())
    }

    /// What [`Step::Find`] asked for: the 20 bytes that peers use for the torrent, if there is one.
    ///
    /// # Errors
    /// [`MseError::UnknownTorrent`]
    pub fn handle_torrent(&mut self, torrent: Option<[u8; 20]>) -> Result<(), MseError> {
        let stage = replace(&mut self.stage, Stage::Over);
        let torrent = torrent.ok_or(MseError::UnknownTorrent)?;
        self.stage = match stage {
            Stage::Torrent(secret, _) => Stage::Provide(Box::new(Ciphers::new(&secret, &torrent, false)), torrent),
            stage => {
                debug_assert!(false, "no torrent was looked for");
                stage
            }
        };
        Ok(())
    }

    /// What to do next. An error is the end of it.
    ///
    /// # Errors
    /// [`MseError`]
    pub fn poll(&mut self) -> Result<Step, MseError> {
        loop {
            if !self.out.is_empty() {
                return Ok(Step::Send(take(&mut self.out)));
            }
            let stage = replace(&mut self.stage, Stage::Over);
            let (stage, step) = self.advance(stage)?;
            self.stage = stage;
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// One stage further, or the same and what it takes.
    fn advance(&mut self, stage: Stage) -> Result<(Stage, Option<Step>), MseError> {
        let next = match stage {
            Stage::OwnKey(theirs) => {
                return Ok((Stage::OwnKey(theirs), Some(Step::Compute(Power::public_key(&self.exponent)))));
            }
            Stage::TheirKey => {
                if matches!(self.role, Role::Dials(_)) && self.received.starts_with(&Handshake::PREFIX) {
                    return Err(MseError::Plaintext);
                }
                match (self.take(), &self.role) {
                    (Some(theirs), Role::Dials(_)) => Ok(Stage::Secret(theirs)),
                    (Some(theirs), Role::Answers) => Ok(Stage::OwnKey(Some(theirs))),
                    (None, _) => Err(Stage::TheirKey),
                }
            }
            Stage::Secret(theirs) => {
                return Ok((Stage::Secret(theirs), Some(Step::Compute(Power::secret(&self.exponent, theirs)))));
            }
            Stage::SeekVc(ciphers, mark) => {
                if self.skip_to(&mark)? {
                    Ok(Stage::Select(ciphers))
                } else {
                    Err(Stage::SeekVc(ciphers, mark))
                }
            }
            Stage::Select(mut ciphers) => match self.open::<6>(&mut ciphers) {
                Some([a, b, c, d, high, low]) => {
                    let method = self.selected(u32::from_be_bytes([a, b, c, d]))?;
                    Ok(Stage::PadD(ciphers, method, pad_len(high, low)?))
                }
                None => Err(Stage::Select(ciphers)),
            },
            Stage::PadD(mut ciphers, method, len) => match (self.open_many(&mut ciphers, len), &self.role) {
                (Some(_), Role::Dials(Handshake { info_hash, .. })) => {
                    Ok(Stage::Done(ciphers, *info_hash, method, Vec::new()))
                }
                _ => Err(Stage::PadD(ciphers, method, len)),
            },
            Stage::SeekHash(secret) => {
                if self.skip_to(&sha1(&[b"req1", &secret]))? {
                    Ok(Stage::Mark(secret))
                } else {
                    Err(Stage::SeekHash(secret))
                }
            }
            Stage::Mark(secret) => match self.take() {
                Some(hash) => Ok(Stage::Torrent(secret, xor(hash, sha1(&[b"req3", &secret])))),
                None => Err(Stage::Mark(secret)),
            },
            Stage::Torrent(secret, mark) => return Ok((Stage::Torrent(secret, mark), Some(Step::Find(mark)))),
            Stage::Provide(mut ciphers, torrent) => match self.open::<14>(&mut ciphers) {
                Some([vc @ .., a, b, c, d, high, low]) => {
                    if vc != VC {
                        return Err(MseError::Verification);
                    }
                    let method = self.select(u32::from_be_bytes([a, b, c, d]))?;
                    Ok(Stage::PadC(ciphers, torrent, method, pad_len(high, low)?))
                }
                None => Err(Stage::Provide(ciphers, torrent)),
            },
            Stage::PadC(mut ciphers, torrent, method, len) => match self.open_many(&mut ciphers, len + 2).as_deref() {
                Some([.., high, low]) => {
                    let len = usize::from(u16::from_be_bytes([*high, *low]));
                    Ok(Stage::Payload(ciphers, torrent, method, len))
                }
                _ => Err(Stage::PadC(ciphers, torrent, method, len)),
            },
            Stage::Payload(mut ciphers, torrent, method, len) => match self.open_many(&mut ciphers, len) {
                Some(payload) => {
                    self.send_answer(&mut ciphers, method);
                    Ok(Stage::Done(ciphers, torrent, method, payload))
                }
                None => Err(Stage::Payload(ciphers, torrent, method, len)),
            },
            Stage::Done(mut ciphers, torrent, method, mut first) => {
                let at = first.len();
                first.append(&mut self.received);
                if method == Method::Rc4 {
                    ciphers.read.apply(&mut first[at..]);
                }
                let ciphers = (method == Method::Rc4).then_some(ciphers);
                return Ok((Stage::Over, Some(Step::Done(Secured { torrent, ciphers, first }))));
            }
            Stage::Over => return Err(MseError::Over),
        };
        Ok(match next {
            Ok(next) => (next, None),
            Err(same) => (same, Some(Step::Read)),
        })
    }

    /// A's third part.
    fn send_request(&mut self, secret: &[u8; KEY_LEN], handshake: &Handshake) -> Stage {
        let torrent = &handshake.info_hash;
        self.out.extend_from_slice(&sha1(&[b"req1", secret]));
        self.out.extend_from_slice(&xor(torrent_mark(torrent), sha1(&[b"req3", secret])));
        let mut ciphers = Box::new(Ciphers::new(secret, torrent, true));
        let offered = self.methods.iter().fold(0, |bits, method| bits | method.bit());
        self.seal(&mut ciphers, &[&self.preamble(offered), &PAYLOAD_LEN.to_be_bytes(), &handshake.encode()]);
        let mut mark = VC;
        ciphers.read.apply(&mut mark);
        Stage::SeekVc(ciphers, mark)
    }

    /// B's second part.
    fn send_answer(&mut self, ciphers: &mut Ciphers, method: Method) {
        self.seal(ciphers, &[&self.preamble(method.bit())]);
    }

    /// VC, methods, and a pad with its length.
    fn preamble(&self, methods: u32) -> Vec<u8> {
        let len = self.entropy.second_pad_len();
        let mut preamble = [&VC[..], &methods.to_be_bytes(), &len.to_be_bytes()].concat();
        preamble.resize(preamble.len() + usize::from(len), 0);
        preamble
    }

    fn seal(&mut self, ciphers: &mut Ciphers, parts: &[&[u8]]) {
        let at = self.out.len();
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        ciphers.write.apply(&mut self.out[at..]);
    }

    /// What B has selected, which must be one of those that were offered.
    fn selected(&self, bit: u32) -> Result<Method, MseError> {
        self.methods.iter().copied().find(|method| method.bit() == bit).ok_or(MseError::Method(bit))
    }

    /// What B selects of what A offers. There may be bits that nobody knows.
    fn select(&self, offered: u32) -> Result<Method, MseError> {
        self.methods.iter().copied().find(|method| method.bit() & offered != 0).ok_or(MseError::Method(offered))
    }

    /// Passes over a pad and `mark`, which ends it. False if that has not come yet.
    fn skip_to(&mut self, mark: &[u8]) -> Result<bool, MseError> {
        let most = usize::from(MAX_PAD) + mark.len();
        let searched = &self.received[..self.received.len().min(most)];
        match searched.windows(mark.len()).position(|window| window == mark) {
            Some(pad) => {
                self.received.drain(..pad + mark.len());
                Ok(true)
            }
            None if searched.len() == most => Err(MseError::NoSync),
            None => Ok(false),
        }
    }

    /// The next bytes as they came, if they have.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.received.first_chunk()?;
        self.received.drain(..N);
        Some(taken)
    }

    /// The next bytes, decrypted.
    fn open<const N: usize>(&mut self, ciphers: &mut Ciphers) -> Option<[u8; N]> {
        let mut taken = self.take()?;
        ciphers.read.apply(&mut taken);
        Some(taken)
    }

    fn open_many(&mut self, ciphers: &mut Ciphers, len: usize) -> Option<Vec<u8>> {
        if self.received.len() < len {
            return None;
        }
        let rest = self.received.split_off(len);
        let mut taken = replace(&mut self.received, rest);
        ciphers.read.apply(&mut taken);
        Some(taken)
    }
}

fn pad_len(high: u8, low: u8) -> Result<usize, MseError> {
    let len = u16::from_be_bytes([high, low]);
    if len > MAX_PAD { Err(MseError::Pad(len)) } else { Ok(usize::from(len)) }
}
