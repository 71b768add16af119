#!/usr/bin/env python3
"""A server that redirects, and a port that nobody is to knock at.

    redirects.py ADDRESS PORT CANARY < LOCATIONS

`/N/...` leads to line N of the standard input. What is asked for and who knocks is written to the standard output.
"""
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, PORT, CANARY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
LOCATIONS = sys.stdin.read().split()


class Redirects(BaseHTTPRequestHandler):
    def do_GET(self):
        print('asked', self.path, flush=True)
        number = self.path.split('/')[1]
        body = b'd8:intervali60e5:peers0:e'
        if number.isdigit():
            self.send_response(302)
            self.send_header('Location', LOCATIONS[int(number)])
            body = b''
        else:
            self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def watch(family, address):
    listener = socket.create_server((address, CANARY), family=family, dualstack_ipv6=False)
    while True:
        print('knock', *listener.accept()[1][:2], flush=True)


for place in (socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::'):
    threading.Thread(target=watch, args=place, daemon=True).start()
server = ThreadingHTTPServer((ADDRESS, PORT), Redirects)
print('ready', flush=True)
server.serve_forever()
