#!/usr/bin/env python3
"""A server of files with ranges, in a few lines of python's http.server.

    range_server.py PORT FOLDER LOG
"""
import os
import re
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Ranges(SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        path = self.translate_path(self.path)
        asked = re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('Range', ''))
        if not asked or not os.path.isfile(path):
            return super().do_GET()
        size = os.path.getsize(path)
        first, last = int(asked[1]), min(int(asked[2]), size - 1)
        if first > last:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{size}')
            self.send_header('Content-Length', '0')
            return self.end_headers()
        self.send_response(206)
        self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
        self.send_header('Content-Length', str(last - first + 1))
        self.end_headers()
        with open(path, 'rb') as file:
            file.seek(first)
            self.wfile.write(file.read(last - first + 1))

    def log_request(self, code='-', size='-'):
        with open(sys.argv[3], 'a') as log:
            log.write(f"{int(code)} {self.command} {self.path} {self.headers.get('Range', '')}\n")


os.chdir(sys.argv[2])
ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Ranges).serve_forever()
