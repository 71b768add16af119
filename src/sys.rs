//! L3, at its foot: what only some systems can do, each with a portable fallback. Nothing else names a platform.
