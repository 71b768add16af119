#!/usr/bin/env python3
"""libtorrent's DHT nodes on one loopback address, for gannet's interoperability tests.

    libtorrent_dht.py IP COUNT

One JSON object per line on standard output. The first says `ports`. From then on the lines of standard input are carried
out one after the other, each is answered by one object, and with its end the nodes end:

    add PORT               all nodes are told of a node on that port
    announce HASH PORT     a peer
    peers HASH             answered by `peers` (list of HOST:PORT)
    put TEXT               an item that does not change: `target`, `stored` (nodes)
    get TARGET             such an item: `value`
"""
import json
import sys
import time
import warnings

warnings.simplefilter('ignore')
import libtorrent as lt  # noqa: E402

# For one answer, and how long until the question is put again.
PATIENCE, AGAIN = 50, 2


def say(**event):
    print(json.dumps(event), flush=True)


def session(ip):
    host = f'[{ip}]' if ':' in ip else ip
    return lt.session({
        'listen_interfaces': f'{host}:0', 'enable_dht': True, 'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False,
        # All have the same address here, and it is no real one.
        'dht_bootstrap_nodes': '', 'dht_restrict_routing_ips': False, 'dht_restrict_search_ips': False,
        'dht_ignore_dark_internet': False, 'dht_enforce_node_id': False, 'dht_prefer_verified_node_ids': False,
        'dht_block_ratelimit': 100000, 'dht_upload_rate_limit': 1000000,
        'alert_mask': lt.alert.category_t.dht_notification | lt.alert.category_t.dht_operation_notification})


def alerts(s, kind, ask):
    end, last = time.time() + PATIENCE, 0
    while time.time() < end:
        if time.time() - last > AGAIN:
            ask()
            last = time.time()
        s.wait_for_alert(100)
        yield from (alert for alert in s.pop_alerts() if isinstance(alert, kind))
    sys.exit(f'no {kind.__name__} for {PATIENCE} s')


def carry_out(sessions, ip, verb, *values):
    s = sessions[-1]
    hash_of = lambda text: lt.sha1_hash(bytes.fromhex(text))
    if verb == 'add':
        for one in sessions:
            one.add_dht_node((ip, int(values[0])))
        return {}
    if verb == 'announce':
        s.dht_announce(hash_of(values[0]), int(values[1]), 0)
        return {}
    if verb == 'peers':
        for alert in alerts(s, lt.dht_get_peers_reply_alert, lambda: s.dht_get_peers(hash_of(values[0]))):
            if alert.peers():
                return {'peers': [f'{host}:{port}' for host, port in alert.peers()]}
    if verb == 'put':
        targets = []
        for alert in alerts(s, lt.dht_put_alert, lambda: targets.append(s.dht_put_immutable_item(values[0]))):
            if alert.num_success > 0:
                return {'target': str(targets[0]), 'stored': alert.num_success}
    if verb == 'get':
        for alert in alerts(s, lt.dht_immutable_item_alert, lambda: s.dht_get_immutable_item(hash_of(values[0]))):
            value = alert.item() if callable(getattr(alert, 'item', None)) else alert.item
            if value:
                return {'value': value.decode() if isinstance(value, bytes) else str(value)}
    raise ValueError(verb)


def main():
    ip, count = sys.argv[1], int(sys.argv[2])
    sessions = [session(ip) for _ in range(count)]
    ports = [s.listen_port() for s in sessions]
    # A node of libtorrent names in its answers only nodes that have answered it, and looks at one that it has merely heard
    # of every five seconds: left to themselves fifteen need a minute to know each other, and what one of them announces
    # before that lies where nobody looks. Those that it is told of it asks at once.
    for s in sessions:
        for port in ports:
            if port != s.listen_port():
                s.add_dht_node((ip, port))
    say(ports=ports)
    for line in sys.stdin:
        for s in sessions:
            s.pop_alerts()
        say(**carry_out(sessions, ip, *line.split()))


main()
