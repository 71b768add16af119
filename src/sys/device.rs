use std::io;

/// Makes everything that `socket` sends leave by the network interface `device`.
///
/// # Errors
/// As the system says; `Unsupported` where interfaces cannot be chosen: traffic that was to take one way must not take
/// another.
pub fn bind_socket(socket: &socket2::Socket, device: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return socket.bind_device(Some(device.as_bytes()));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (socket, device);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes all requests of an HTTP client leave by the network interface `device`. Where interfaces cannot be chosen it
/// changes nothing.
pub fn bind_client(builder: reqwest::ClientBuilder, device: &str) -> reqwest::ClientBuilder {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"))]
    return builder.interface(device);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios")))]
    {
        let _ = device;
        builder
    }
}

/// Bytes that a socket may hold, of what comes or of what goes, whichever is less.
///
/// # Errors
/// As the system says.
pub fn socket_buffer(socket: &socket2::Socket) -> io::Result<usize> {
    let both = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    // Linux doubles what it is asked for, and says so: half is for its own use.
    Ok(if cfg!(target_os = "linux") { both / 2 } else { both })
}
