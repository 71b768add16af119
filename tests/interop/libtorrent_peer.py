#!/usr/bin/env python3
"""libtorrent as a command: the other side of gannet's interoperability tests.

    libtorrent_peer.py create PATH OUT --format v1|v2|hybrid [--piece-length N] [--tracker URL]...
    libtorrent_peer.py info TORRENT
    libtorrent_peer.py seed TORRENT DIR [--peer HOST:PORT]... [--encryption plaintext|either|rc4] [--utp]
    libtorrent_peer.py leech TORRENT DIR [--peer HOST:PORT]... [--encryption plaintext|either|rc4] [--utp]

`--set NAME=JSON` changes a setting of the session; `--limit-up` and `--limit-down` are
the torrent's, in bytes per second.
TORRENT may be a magnet link. DIR holds, or is to hold, what the torrent names. `seed` checks the data first. Peers listen
on a free port of 127.0.0.1 and speak to nobody but the peers and trackers they are told of, by TCP, or with
`--utp` by uTP only. One JSON object per line on standard output: `listening` (port), `ready`
(the data is complete and can be asked for), `complete`, `peer`, `error`.
A seed or leech lives until its standard input is closed.
"""
import argparse
import json
import os
import sys
import threading
import warnings

warnings.simplefilter('ignore')
import libtorrent as lt  # noqa: E402


def say(**event):
    print(json.dumps(event), flush=True)


def create(o):
    flags = {'v1': lt.create_torrent.v1_only, 'v2': lt.create_torrent.v2_only, 'hybrid': 0}[o.format]
    made = lt.create_torrent(lt.list_files(o.path), o.piece_length, flags)
    for tier, url in enumerate(o.tracker):
        made.add_tracker(url, tier)
    made.set_creator('libtorrent ' + lt.__version__)
    lt.set_piece_hashes(made, os.path.dirname(os.path.abspath(o.path)))
    with open(o.out, 'wb') as f:
        f.write(lt.bencode(made.generate()))


def info(o):
    added = lt.load_torrent_file(o.torrent)
    ti, hashes = added.ti, added.ti.info_hashes()
    layout = ti.files()
    files = []
    for i in range(layout.num_files()):
        flags = layout.file_flags(i)
        files.append({'path': layout.file_path(i), 'length': layout.file_size(i), 'pad': bool(flags & layout.flag_pad_file)})
    v1, v2 = hashes.has_v1(), hashes.has_v2()
    say(name=ti.name(), version='hybrid' if v1 and v2 else 'v2' if v2 else 'v1',
        info_hash_v1=str(hashes.v1) if v1 else None, info_hash_v2=str(hashes.v2) if v2 else None,
        total_size=sum(f['length'] for f in files if not f['pad']), piece_length=ti.piece_length(), piece_count=ti.num_pieces(),
        files=files, trackers=list(added.trackers), web_seeds=list(added.url_seeds), private=ti.priv(),
        comment=added.comment, created_by=added.created_by, creation_date=added.creation_date)


def session(encryption, utp):
    policy = {'plaintext': lt.enc_policy.disabled, 'either': lt.enc_policy.enabled, 'rc4': lt.enc_policy.forced}[encryption]
    return lt.session({
        'listen_interfaces': '127.0.0.1:0', 'outgoing_interfaces': '127.0.0.1', 'enable_dht': False, 'enable_lsd': False,
        'enable_upnp': False, 'enable_natpmp': False, 'enable_outgoing_utp': utp, 'enable_incoming_utp': utp,
        'enable_outgoing_tcp': not utp, 'enable_incoming_tcp': not utp,
        'out_enc_policy': int(policy), 'in_enc_policy': int(policy), 'allowed_enc_level': int(lt.enc_level.rc4 if encryption == 'rc4' else lt.enc_level.both),
        'allow_multiple_connections_per_ip': True, 'min_reconnect_time': 1,
        'alert_mask': lt.alert.category_t.status_notification | lt.alert.category_t.error_notification | lt.alert.category_t.connect_notification})


def peer(o):
    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), closed.set()), daemon=True).start()
    s = session(o.encryption, o.utp)
    s.apply_settings({name: json.loads(value) for name, value in (text.split('=', 1) for text in o.set)})
    added = lt.parse_magnet_uri(o.torrent) if o.torrent.startswith('magnet:') else lt.load_torrent_file(o.torrent)
    added.save_path = o.dir
    added.flags &= ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    handle = s.add_torrent(added)
    handle.set_upload_limit(o.limit_up)
    handle.set_download_limit(o.limit_down)
    say(event='listening', port=s.listen_port())
    ready = False
    while not closed.is_set():
        s.wait_for_alert(100)
        for alert in s.pop_alerts():
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.listen_failed_alert, lt.tracker_error_alert)):
                say(event='error', message=alert.message())
            elif isinstance(alert, (lt.peer_connect_alert, lt.peer_disconnected_alert, lt.peer_error_alert)):
                say(event='peer', message=alert.message())
        status = handle.status()
        if status.is_seeding and not ready:
            ready = True
            say(event='ready' if o.mode == 'seed' else 'complete', downloaded=status.total_payload_download)
        elif o.mode == 'seed' and not ready and str(status.state) == 'downloading':
            sys.exit('libtorrent_peer: the data to be seeded is not complete')
        if o.peer and status.num_peers == 0 and str(status.state) in ('downloading', 'downloading_metadata', 'seeding'):
            for address in o.peer:
                host, port = address.rsplit(':', 1)
                handle.connect_peer((host, int(port)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = p.add_subparsers(dest='mode', required=True)
    c = modes.add_parser('create')
    c.add_argument('path')
    c.add_argument('out')
    c.add_argument('--format', choices=['v1', 'v2', 'hybrid'], required=True)
    c.add_argument('--piece-length', type=int, default=0)
    c.add_argument('--tracker', action='append', default=[])
    modes.add_parser('info').add_argument('torrent')
    for mode in ('seed', 'leech'):
        m = modes.add_parser(mode)
        m.add_argument('torrent')
        m.add_argument('dir')
        m.add_argument('--peer', action='append', default=[])
        m.add_argument('--encryption', choices=['plaintext', 'either', 'rc4'], default='plaintext')
        m.add_argument('--set', action='append', default=[])
        m.add_argument('--limit-up', type=int, default=0)
        m.add_argument('--limit-down', type=int, default=0)
        m.add_argument('--utp', action='store_true')
    o = p.parse_args()
    {'create': create, 'info': info, 'seed': peer, 'leech': peer}[o.mode](o)


main()
