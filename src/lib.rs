//! gannet: a BitTorrent client for the terminal, and the library that it is made of.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use gannet::session::Place;
//! use gannet::{AddTorrent, Config, Metainfo, Session};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let metainfo = Metainfo::parse(&std::fs::read("debian.iso.torrent")?)?;
//! let session = Session::start(Config::new("state")).await?;
//! let place = Place::Folder("downloads".into());
//! let torrent = session.add(AddTorrent::new(Arc::new(metainfo), place)).await?;
//! torrent.finished().await?;
//! session.stop(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! What follows is the map for those who change the code.
//!
//! # Layers
//!
//! ```text
//! L6                  cli                     command line: arguments, what is shown, exit codes
//!                      │
//! L5                session ──► error         many torrents; the public error
//!                      │
//! L4                torrent                   one running torrent: tasks that join all that is below
//!                ┌─────┼─────────┐
//! L3            net   disk ──► storage        sockets; disk threads; files
//!                └──┬──┴─────────┘
//!                  sys                        at the foot of L3: what differs from system to system
//!                   │
//! L2     swarm  tracker  dht  utp  resume     decisions; announces; uTP; state between runs     pure from here down
//!                   │
//! L1         metainfo   wire                  `.torrent` and magnet; the peer protocol
//!                   │
//! L0          base      hash                  words and arithmetic; SHA-1, SHA-256, trees of hashes
//! ```
//!
//! Arrows go down only, past as many layers as one likes. Sideways there are `session` → `error`, `disk` → `storage`, and
//! from `net`, `disk` and `storage` to `sys`; nothing else. L0 to L2 are pure: no runtime, sockets, files, threads,
//! locks, clock or entropy; `now` and `seed` are arguments, so that swarms can be simulated and every failure replayed.
//! What goes up goes as a returned value. `unsafe` stands in `hash`, `sys` and `storage::mapping`; platforms are told
//! apart in `sys` and `storage::mapping`. `tests/architecture.rs` holds the code to all of this.
//!
//! Every fact has one owner: what is decided about a torrent is decided in its [`Swarm`](swarm::Swarm). Payload changes
//! hands by ownership: a block is not copied between the read from the socket and the write to the file.
//!
//! # A block, from socket to disk
//!
//! 1. *Wake.* A connection is one task (`torrent/conn.rs`). It waits for its socket, for a signal that its outbox has
//!    something, for a read from disk, or for a rate limit.
//! 2. *Read.* One vectored read into [`Decoder::buffers`](wire::Decoder::buffers): while the body of a block is under
//!    way, the kernel copies it straight into that block's [`BlockBuf`](base::BlockBuf). On a fast connection the read is
//!    laid out for the blocks that were asked for next as well (`wire/lookahead.rs`, `swarm/ahead.rs`).
//! 3. *Decide.* For all that the read brought, the swarm's lock is taken once (`Shared::turn` in `torrent/shared.rs`).
//!    [`receive_into`](swarm::Swarm::receive_into) gives each announced body a buffer or discards it,
//!    [`handle_block`](swarm::Swarm::handle_block) moves the block into its piece,
//!    [`handle_turn`](swarm::Swarm::handle_turn) asks for more, as frames in the [`Outbox`](wire::Outbox).
//! 4. *Carry out.* What the swarm decided ([`Action`](swarm::Action)) is collected under the lock and done after it: a
//!    piece that is full goes to the disk threads as one [`Job`](disk::Job), peers that have frames waiting are woken.
//! 5. *Verify.* A disk thread gathers pieces for some milliseconds (`disk/pool.rs`), hashes them together
//!    ([`check_pieces`](hash::check_pieces)), writes the good ones ([`Storage::write_piece`](storage::Storage::write_piece))
//!    and posts the verdicts to the torrent's [`Completions`](disk::Completions) (`disk/work.rs`).
//! 6. *Account.* The torrent's task (`torrent/task.rs`) drains them into
//!    [`handle_verdict`](swarm::Swarm::handle_verdict): buffers go back to the pool, those who lack the piece are told
//!    `have`, those who sent a bad block are blamed. Then events are told, and resume data is saved now and then.
//!
//! What waits is bounded by the buffers of the [`BlockPool`](base::BlockPool): nothing is asked for that has none. A piece
//! for which there is not enough memory, or which nobody goes on with, is *spilled* (`swarm/memory.rs`): its blocks are
//! written unverified, and it is hashed from the disk, and only then had, when all of it is there.
//!
//! # A request, from disk to socket
//!
//! 1. A `request` is checked by the swarm (`swarm/upload.rs`): a valid block, a piece that we have, a peer that may. It
//!    waits in the peer's outbox as a [`Block`](base::Block); nothing is read yet, and `cancel` or `choke` takes it out.
//! 2. When the connection has no blocks on their way out and the rate limit allows, it takes a few from the outbox and
//!    has a disk thread read them into one buffer (`start_upload` in `torrent/conn.rs`), so that a cold disk never stalls
//!    the runtime.
//! 3. The answer becomes frames in `torrent/outgoing.rs`; headers and payload leave in one vectored write. Control
//!    messages go before blocks, never into one.
//! 4. [`handle_sent`](swarm::Swarm::handle_sent) counts what has left: for choking, ratios and trackers.
//!
//! # Where to find what
//!
//! | feature | place |
//! |---|---|
//! | options, settings, exit codes | `cli/args.rs`, `cli/options.rs`, `cli/settings.rs`, `cli/exit.rs` |
//! | a subcommand | `cli/get.rs`, `cli/seed.rs`, `cli/create.rs`, `cli/verify.rs` and so on; making torrents `cli/making.rs`; asking what a link names `cli/metadata.rs` |
//! | the progress display, JSON lines | `cli/progress.rs`, `cli/report.rs`, `cli/json.rs` |
//! | reading and making `.torrent` files | `metainfo/info.rs`, `metainfo/build.rs` |
//! | safe names of files | `metainfo/path.rs`, `metainfo/names.rs`; never outside the folder: `sys/dir.rs`, `cli/sandbox.rs` |
//! | magnet links | `metainfo/magnet.rs` |
//! | v2 and hybrid torrents: trees of hashes | `metainfo/merkle.rs`, `hash/merkle.rs` |
//! | limits against hostile bencode | `base/bencode.rs` |
//! | peer messages and their limits | `wire/message.rs`, `wire/frame.rs`, `wire/decoder.rs` |
//! | extensions (BEP 10) and peer exchange (BEP 11) | `wire/extended.rs`, `wire/pex.rs`, `swarm/pex.rs` |
//! | introductions of peers behind routers (BEP 55) | `wire/notices.rs`, `swarm/holepunch.rs` |
//! | peers in the local network (BEP 14) | `wire/lsd.rs`, `net/lsd/` |
//! | which piece next; endgame | `swarm/picker/` |
//! | web seeds (BEP 17, 19) | what they are asked for: `swarm/web_seed.rs`, `swarm/fetch.rs`, `swarm/picker/run.rs`; addresses: `metainfo/web_seed.rs`; HTTP: `net/web_seed.rs`, `net/range_answer.rs`; tasks: `torrent/web_seed.rs` |
//! | how many requests, timeouts, snubbing | `swarm/requests.rs` |
//! | memory for blocks, pieces that do not fit | `swarm/memory.rs`, `swarm/partial.rs` |
//! | who is unchoked | `swarm/choker.rs`, `swarm/upload_slots.rs` |
//! | whom to dial; back-off; bans | `swarm/candidates.rs`, `swarm/address_filter.rs`, `swarm/bans.rs` |
//! | devices and proxies: how everything leaves | `net/egress.rs`, `net/proxy/`, `net/dns/` (names) |
//! | block lists | `swarm/ip_filter.rs` (formats, look-up), `session/ip_filter.rs` (files) |
//! | who sent the bad block | `swarm/blame.rs` |
//! | allowed-fast and suggested pieces (BEP 6), super-seeding (BEP 16) | `swarm/allowed_fast.rs`, `swarm/suggest.rs`, `swarm/super_seed.rs` |
//! | magnet links: metadata from peers (BEP 9), hashes of v2 pieces (BEP 52) | `swarm/metadata.rs`, `swarm/hash_picker.rs`, `swarm/early.rs` |
//! | the same given to peers | `swarm/describe.rs`, `swarm/hash_trees.rs` |
//! | when to announce, to which tracker | `tracker/schedule/` |
//! | announces over HTTP and UDP | forms in `tracker/http.rs`, `tracker/udp.rs`; sockets in `net/tracker/` |
//! | the DHT: searches, answers, limits | `dht/` (pure), driven by `net/dht.rs`; `session/dht.rs` (state file), `torrent/dht.rs` (when), `cli/dht/` |
//! | where a URL from a stranger may lead | `net/http/scope.rs`, `net/http/address.rs` (names) |
//! | encryption: handshake and cipher; when | `wire/mse/`; `net/encryption.rs`, `net/mse.rs`, `net/stream.rs` |
//! | connections: reaching peers, listening, handshakes | `net/stream.rs`, `net/dial.rs`, `net/listen.rs`, `net/handshake.rs` |
//! | what this machine can do | `cli/doctor/` (what it means and what to do: `judge.rs`, pure) |
//! | port mapping: PCP, NAT-PMP, UPnP; who is told of the ports outside | `net/nat/`, `session/nat.rs`; `torrent/reach.rs` |
//! | one UDP port for uTP and DHT | `net/udp.rs` |
//! | uTP (BEP 29): streams, windows, losses, limits of strangers | `utp/` (pure), driven by `net/utp.rs`; when it is tried: `net/dial.rs` |
//! | rate limits, limits of connections | `torrent/limits.rs`, `torrent/network.rs`, `torrent/places.rs`, `session/mod.rs` |
//! | opening, preallocating, mapped files | `storage/mod.rs`, `storage/prepare.rs`, `storage/mapping.rs` |
//! | hashing what lies on disk | `storage/check.rs`; of new torrents `storage/hash_files.rs` |
//! | resume data | `resume` (bytes, what may be claimed and believed), `storage/state_file.rs` (file), `torrent/saving.rs` (when) |
//! | many hashes at once (SHA instructions, AVX-512) | `hash/lanes/` |
//! | simulated swarms, real sockets, other clients | `tests/sim/`, `tests/loopback/`, `tests/interop/` |
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | [`Metainfo`], [`Info`](metainfo::Info), [`InfoHash`](base::InfoHash) | a parsed `.torrent`, its info dictionary, its identity |
//! | [`SafePath`](metainfo::SafePath) | a path from a stranger, made safe once |
//! | piece, [`PieceIndex`](base::PieceIndex) | what has a hash |
//! | [`Block`](base::Block) | what is asked for: 16 KiB of a piece, less at its end; valid by construction |
//! | [`Geometry`](base::Geometry) | the pieces and blocks of a torrent: the only way from integers of the wire to positions |
//! | [`Bitfield`](base::Bitfield) | who has which pieces |
//! | [`Message`](wire::Message), [`Decoder`](wire::Decoder), [`Outbox`](wire::Outbox) | the peer protocol: bytes in, messages, bytes out |
//! | [`Swarm`](swarm::Swarm) | the brain of one torrent |
//! | peer, [`PeerKey`](base::PeerKey) | one connected remote |
//! | web seed, lane, [`Fetch`](swarm::Fetch) | a server that has the files; what it is asked for side by side; one request's worth of blocks |
//! | candidate | an address that we may dial |
//! | [`Picker`](swarm::Picker) | which block next |
//! | choke, interested, snubbed, endgame | as in BEP 3 |
//! | [`Storage`](storage::Storage), [`FileMap`](storage::FileMap) | the files of a torrent; from pieces to spans of files |
//! | [`DiskPool`](disk::DiskPool), [`Job`](disk::Job), [`Verdict`](disk::Verdict) | disk threads, their work, what a hash said |
//! | [`Session`], [`Torrent`], [`Event`](session::Event), [`Status`](session::Status) | the public handles |
//!
//! Not used: chunk, subpiece, manager, handler, helper, util, common, context.

pub mod base;
pub mod cli;
pub mod dht;
pub mod disk;
pub mod error;
pub mod hash;
pub mod metainfo;
pub mod net;
pub mod resume;
pub mod session;
pub mod storage;
pub mod swarm;
pub mod sys;
pub mod torrent;
pub mod tracker;
pub mod utp;
pub mod wire;

pub use error::Error;
pub use metainfo::Metainfo;
pub use session::{AddTorrent, Config, Session, Torrent};
