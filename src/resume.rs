//! L2: what is kept about a torrent between runs, to and from checksummed bytes.
