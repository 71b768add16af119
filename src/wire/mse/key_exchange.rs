use std::fmt;

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{U192, U768, const_monty_params};

use super::KEY_LEN;

const_monty_params!(
    Prime,
    U768,
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
     ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    "The prime P of the key exchange, 768 bits."
);

type Residue = ConstMontyForm<Prime, { U768::LIMBS }>;

/// The generator G.
const GENERATOR: Residue = Residue::new(&U768::from_u8(2));

/// Bits of an exponent. The specification takes 160 as good for "a 128 bit RC4 key"; more only costs time.
const EXPONENT_BITS: u32 = 160;

/// A secret exponent, Xa or Xb.
#[derive(Clone)]
pub(super) struct PrivateKey(U192);

impl PrivateKey {
    pub(super) fn new(random: &[u8; 20]) -> Self {
        let mut bytes = [0; 24];
        bytes[4..].copy_from_slice(random);
        Self(U192::from_be_slice(&bytes))
    }

    fn raise(&self, base: &Residue) -> [u8; KEY_LEN] {
        let power = base.pow_bounded_exp(&self.0, EXPONENT_BITS).retrieve();
        let mut bytes = [0; KEY_LEN];
        bytes.copy_from_slice(power.to_be_bytes().as_ref());
        bytes
    }
}

/// What is to be computed on the way to a common secret. It takes a few dozen microseconds, and should be done where
/// that keeps nobody waiting.
pub struct Power {
    exponent: PrivateKey,
    /// The other side's key; without it our own is wanted.
    theirs: Option<[u8; KEY_LEN]>,
}

/// Its result.
pub struct Raised(pub(super) Option<[u8; KEY_LEN]>);

impl Power {
    pub(super) fn public_key(exponent: &PrivateKey) -> Self {
        Self { exponent: exponent.clone(), theirs: None }
    }

    pub(super) fn secret(exponent: &PrivateKey, theirs: [u8; KEY_LEN]) -> Self {
        Self { exponent: exponent.clone(), theirs: Some(theirs) }
    }

    /// Computes it, in the same time whatever the exponent.
    pub fn raise(&self) -> Raised {
        let base = match &self.theirs {
            None => GENERATOR,
            Some(theirs) => match residue(theirs) {
                Some(base) => base,
                None => return Raised(None),
            },
        };
        Raised(Some(self.exponent.raise(&base)))
    }
}

/// A public key, if it is one: 0, 1, P - 1 and what is not below P would make the secret one that anybody can guess.
fn residue(key: &[u8; KEY_LEN]) -> Option<Residue> {
    let key = U768::from_be_slice(key);
    let last = Prime::PARAMS.modulus().as_ref().wrapping_sub(&U768::ONE);
    (key > U768::ONE && key < last).then(|| Residue::new(&key))
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Power").field("theirs", &self.theirs).finish_non_exhaustive()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raised")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn key(fill: impl Fn(usize) -> u8) -> [u8; KEY_LEN] {
        std::array::from_fn(fill)
    }

    /// Computed with the integers of Python: `pow(2, x, p)` and `pow(y, x, p)`.
    #[test]
    fn vectors() {
        let private: [u8; 20] = std::array::from_fn(|i| u8::try_from((i * 13 + 200) & 0xff).unwrap());
        let exponent = PrivateKey::new(&private);
        let public = Power::public_key(&exponent).raise().0.unwrap();
        assert_eq!(
            hex(&public),
            "fc6a7e455479766a93903683eeae74e67d9d96f437f050b6829b6d4eba8f53743ca8323682ea611ad42bc11f6ed2ebbd\
             7fbee9903766af456236fcde4dba0c3604a299a35a32b9f84cdcf9da93020c51da30555a1266008a26ecd0997a363e05"
        );
        let theirs = key(|i| u8::try_from((i * 7 + 3) & 0xff).unwrap());
        let secret = Power::secret(&exponent, theirs).raise().0.unwrap();
        assert_eq!(
            hex(&secret),
            "530008f4fc6bcc5909fff67dfe70ec507b2ebbf39130d521e8ffb4a2a9018cdca7d89995d149a13fd7718a29122d690e\
             5565b0d7e696a6368af4617e2276bd2b7ffc3246773ef84c03e2ad3c24dc1d512522a3388b1806fd98b6bcb6ce0888a2"
        );
    }

    #[test]
    fn both_sides_agree_and_odd_keys_are_refused() {
        let (a, b) = (PrivateKey::new(&[0xff; 20]), PrivateKey::new(&[7; 20]));
        let public = |key: &PrivateKey| Power::public_key(key).raise().0.unwrap();
        let secret = |key: &PrivateKey, theirs| Power::secret(key, theirs).raise().0;
        assert_eq!(secret(&a, public(&b)), secret(&b, public(&a)));
        let mut last = [0; KEY_LEN];
        last.copy_from_slice(Prime::PARAMS.modulus().as_ref().to_be_bytes().as_ref());
        let mut prime = last;
        last[KEY_LEN - 1] -= 1;
        let one = key(|i| u8::from(i == KEY_LEN - 1));
        for odd in [key(|_| 0), one, last, prime, key(|_| 0xff)] {
            assert_eq!(secret(&a, odd), None, "{}", hex(&odd));
        }
        prime[KEY_LEN - 1] -= 2;
        assert!(secret(&a, prime).is_some(), "P - 2 is a key");
    }
}
