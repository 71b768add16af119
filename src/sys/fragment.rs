#![allow(unsafe_code, reason = "no safe call sets this option for one family of sockets")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets what `socket` sends from now on be fragmented on its way, or forbids it. `v6`: it is one of IPv6. Where the system
/// does not know how, nothing is changed.
///
/// # Errors
/// As the system says.
pub fn allow_fragments(socket: impl AsFd, v6: bool, allow: bool) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let (level, name, value) = match (v6, allow) {
            (false, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
            (false, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
            (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        };
        set(&socket, level, name, value)?;
        if v6 {
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, (!allow).into())?;
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (socket, v6, allow);
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the option is an integer, which lives until the call returns, and `len` is its length.
    let done = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn long_datagrams_go_in_fragments_if_they_may() {
        for (v6, any) in [(false, "127.0.0.1:0"), (true, "[::1]:0")] {
            let Ok(socket) = UdpSocket::bind(any) else { continue };
            for allow in [true, false, true] {
                allow_fragments(&socket, v6, allow).unwrap();
                socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
            }
        }
    }
}
