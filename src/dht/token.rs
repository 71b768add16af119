//! Write tokens: who stores something must have asked us from the same address before (BEP 5).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::random::Random;
use crate::hash::sha1;

/// A new secret so often; tokens of the one before are taken as well, so a token lives 5 to 10 minutes.
const ROTATION: Duration = Duration::from_secs(5 * 60);

/// Bytes of a token: forging one by chance takes 2^63 tries.
pub(super) const TOKEN_LEN: usize = 8;

#[derive(Debug)]
pub(super) struct Tokens {
    secrets: [[u8; 20]; 2],
    rotated: Instant,
}

impl Tokens {
    pub(super) fn new(now: Instant, random: &mut Random) -> Self {
        let mut secrets = [[0; 20]; 2];
        secrets.iter_mut().for_each(|secret| random.fill(secret));
        Self { secrets, rotated: now }
    }

    fn rotate(&mut self, now: Instant, random: &mut Random) {
        let passed = now.saturating_duration_since(self.rotated).as_secs() / ROTATION.as_secs();
        if passed == 0 {
            return;
        }
        self.secrets.swap(0, 1);
        random.fill(&mut self.secrets[0]);
        if passed > 1 {
            // After a long pause neither is of any more use.
            random.fill(&mut self.secrets[1]);
        }
        self.rotated += Duration::from_secs(passed * ROTATION.as_secs());
    }

    /// The token for `ip`, for the socket `via` only (BEP 45).
    pub(super) fn make(&mut self, now: Instant, via: usize, ip: IpAddr, random: &mut Random) -> [u8; TOKEN_LEN] {
        self.rotate(now, random);
        token(&self.secrets[0], via, ip)
    }

    /// Whether `given` was made for `ip` not long ago.
    pub(super) fn check(&mut self, now: Instant, via: usize, ip: IpAddr, given: &[u8], random: &mut Random) -> bool {
        self.rotate(now, random);
        self.secrets.iter().any(|secret| token(secret, via, ip) == given)
    }
}

fn token(secret: &[u8; 20], via: usize, ip: IpAddr) -> [u8; TOKEN_LEN] {
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let digest = sha1(&[secret, &via.to_be_bytes(), &ip.octets()]);
    std::array::from_fn(|i| digest[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_an_address_and_a_time() {
        let (now, mut random) = (Instant::now(), Random::new([1; 32]));
        let mut tokens = Tokens::new(now, &mut random);
        let (ours, other): (IpAddr, IpAddr) = ("9.9.9.9".parse().unwrap(), "9.9.9.8".parse().unwrap());
        let given = tokens.make(now, 0, ours, &mut random);
        let minutes = |n: u64| now + Duration::from_secs(60 * n);
        assert!(tokens.check(now, 0, ours, &given, &mut random));
        assert!(!tokens.check(now, 0, other, &given, &mut random));
        assert!(!tokens.check(now, 1, ours, &given, &mut random));
        assert!(!tokens.check(now, 0, ours, &given[..7], &mut random) && !tokens.check(now, 0, ours, b"", &mut random));
        assert!(tokens.check(minutes(9), 0, ours, &given, &mut random));
        assert!(!tokens.check(minutes(10), 0, ours, &given, &mut random));
        let given = tokens.make(minutes(500), 0, ours, &mut random);
        assert!(tokens.check(minutes(504), 0, ours, &given, &mut random));
        assert!(!tokens.check(minutes(511), 0, ours, &given, &mut random));
    }
}
