#!/usr/bin/env python3
"""Draws docs/terminal.svg: what a terminal shows during `gannet get`, and when it is done.

    cargo build --release && python3 docs/terminal.py target/release/gannet docs/terminal.svg

Makes a folder of random files, seeds it on the loopback address at a rate that can be watched, and downloads it in a
terminal of tmux, whose contents are then drawn. Needs tmux, and nothing else; leaves nothing behind.
"""
import html
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

COLUMNS, ROWS = 118, 30
CELL_W, CELL_H, FONT = 8.4, 19, 14
PAD, BAR = 16, 34
BACK, FRAME, TEXT = '#15191e', '#262c34', '#d5dae1'
COLOURS = ['#3b4252', '#e06c75', '#98c379', '#e5c07b', '#61afef', '#c678dd', '#56b6c2', '#d5dae1',
           '#7f8896', '#f0868e', '#b0d894', '#f0d197', '#82c4f8', '#d894ea', '#77cdd8', '#ffffff']
FILES = [('2023/lake.raw', 52_000_123), ('2024/summer/beach.raw', 64_000_000), ('2024/summer/hike.jpg', 6_000_001),
         ('2024/winter.jpg', 3_333_333), ('README.txt', 777)]


def session(gannet):
    """Runs the two commands; returns the screen in the middle of the download, and at its end."""
    with tempfile.TemporaryDirectory(prefix='gannet-picture-') as folder:
        at = lambda *parts: os.path.join(folder, *parts)
        noise = random.Random(1)
        for name, length in FILES:
            os.makedirs(os.path.dirname(at('seeded/holiday-photos', name)), exist_ok=True)
            with open(at('seeded/holiday-photos', name), 'wb') as file:
                file.write(noise.randbytes(length))
        os.makedirs(at('bin'))
        os.symlink(os.path.abspath(gannet), at('bin/gannet'))
        clean = {'PATH': at('bin') + ':/usr/bin:/bin', 'HOME': folder, 'LANG': 'C.UTF-8', 'TERM': 'xterm-256color'}
        os.makedirs(at('here'))
        subprocess.run(['gannet', 'create', '-q', '--no-date', at('seeded/holiday-photos')], cwd=at('here'), env=clean,
                       check=True, stdout=subprocess.DEVNULL)
        torrent = at('here/holiday-photos.torrent')
        seeders, peers = [], []
        for n in range(3):
            seeder = subprocess.Popen(
                ['gannet', 'seed', '--json', '--listen', f'127.0.0.1:{48_100 + n}', '--limit-up', '7M', '--state-dir',
                 at(f'state-{n}'), torrent, at('seeded/holiday-photos')],
                env=clean, stdout=subprocess.PIPE, text=True)
            seeders.append(seeder)
            peers.append(f'127.0.0.1:{48_100 + n}')
            for line in seeder.stdout:
                if '"event":"seeding"' in line:
                    break
        tmux = ['tmux', '-L', f'gannet-picture-{os.getpid()}', '-f', '/dev/null']
        variables = dict(clean, GANNET_PEER=','.join(peers), PS1=r'\[\e[1;32m\]$\[\e[0m\] ')
        try:
            subprocess.run(tmux + ['new-session', '-d', '-x', str(COLUMNS), '-y', str(ROWS), '-c', at('here'),
                                   'env', '-i', *(f'{k}={v}' for k, v in variables.items()), 'bash', '--noprofile', '--norc'],
                           check=True)
            show = lambda: subprocess.run(tmux + ['capture-pane', '-e', '-p'], check=True, capture_output=True,
                                          text=True).stdout.rstrip('\n').split('\n')
            send = lambda text: subprocess.run(tmux + ['send-keys', text, 'Enter'], check=True)
            wait(show, '$')
            send('gannet info holiday-photos.torrent')
            wait(show, 'README.txt')
            send('gannet get holiday-photos.torrent')
            wait(show, r' 6\d%')
            middle = show()
            wait(show, 'done:')
            send('gannet verify holiday-photos.torrent holiday-photos')
            wait(show, 'pieces good')
            time.sleep(0.2)
            return middle, show()
        finally:
            subprocess.run(tmux + ['kill-server'], check=False)
            for seeder in seeders:
                seeder.terminate()
                seeder.wait()


def wait(show, pattern):
    for _ in range(600):
        if re.search(pattern.replace('$', r'\$'), plain('\n'.join(show()))):
            return
        time.sleep(0.05)
    sys.exit(f'nothing like {pattern!r} came:\n' + plain('\n'.join(show())))


def plain(text):
    return re.sub(r'\x1b\[[0-9;]*m', '', text)


def cells(line):
    """The letters of a line, each with its colour and whether it is bold."""
    colour, bold, at = None, False, 0
    for match in re.finditer(r'\x1b\[([0-9;]*)m|(.)', line):
        codes, letter = match.groups()
        if letter is not None:
            yield letter, colour, bold
            continue
        numbers = [int(n or 0) for n in codes.split(';')]
        while numbers:
            n = numbers.pop(0)
            if n == 0:
                colour, bold = None, False
            elif n in (1, 22):
                bold = n == 1
            elif 30 <= n <= 37 or 90 <= n <= 97:
                colour = COLOURS[n - 30 if n < 40 else n - 82]
            elif n == 39:
                colour = None
            elif n == 38 and len(numbers) > 1 and numbers[0] == 5:
                colour = COLOURS[numbers[1]] if numbers[1] < 16 else None
                numbers = numbers[2:]


def draw_line(line, left, top, out):
    # What has to fill its cell is drawn; all else is text, in runs of one look.
    blocks = '█▉▊▋▌▍▎▏'
    strokes = {'│': [(.5, 0, .5, 1)], '├': [(.5, 0, .5, 1), (.5, .5, 1, .5)], '└': [(.5, 0, .5, .5), (.5, .5, 1, .5)],
               '─': [(0, .5, 1, .5)]}
    run, look, begin = '', None, 0

    def flush():
        if run.strip():
            colour, bold = look
            text = run.rstrip()
            x = left + (begin + len(text) - len(text.lstrip())) * CELL_W
            text = text.lstrip()
            weight = ' font-weight="bold"' if bold else ''
            out.append(f'<text x="{x:.1f}" y="{top + CELL_H * .74:.1f}" fill="{colour or TEXT}"{weight} '
                       f'textLength="{len(text) * CELL_W:.1f}" lengthAdjust="spacingAndGlyphs">{html.escape(text)}</text>')

    for n, (letter, colour, bold) in enumerate(cells(line)):
        x = left + n * CELL_W
        if letter in blocks:
            width = CELL_W * (8 - blocks.index(letter)) / 8
            out.append(f'<rect x="{x:.2f}" y="{top + 3}" width="{width + .1:.2f}" height="{CELL_H - 6}" fill="{colour or TEXT}" shape-rendering="crispEdges"/>')
        elif letter in strokes:
            path = ''.join(f'M{x + a * CELL_W:.1f} {top + b * CELL_H:.1f}L{x + c * CELL_W:.1f} {top + d * CELL_H:.1f}'
                           for a, b, c, d in strokes[letter])
            out.append(f'<path d="{path}" stroke="{colour or COLOURS[8]}" fill="none"/>')
        if letter in blocks or letter in strokes:
            letter = ' '
        if (colour, bold) != look or letter == ' ' and run.endswith(' '):
            flush()
            run, look, begin = '', (colour, bold), n
        run += letter
    flush()


def draw(screens, path):
    width = COLUMNS * CELL_W + 2 * PAD
    out, top = [], 0
    for title, lines in screens:
        lines = [line for line in lines]
        while lines and not plain(lines[-1]).strip(' $'):
            lines.pop()
        height = BAR + len(lines) * CELL_H + 2 * PAD - 6
        out.append(f'<rect x=".5" y="{top + .5}" width="{width - 1:.1f}" height="{height - 1}" rx="9" fill="{BACK}" stroke="#3a424d"/>')
        out.append(f'<path d="M1 {top + BAR}V{top + 10}a9 9 0 0 1 9-9H{width - 10:.1f}a9 9 0 0 1 9 9V{top + BAR}Z" fill="{FRAME}"/>')
        for n, colour in enumerate(['#ec6a5e', '#f4bf4f', '#61c554']):
            out.append(f'<circle cx="{20 + 20 * n}" cy="{top + BAR / 2}" r="6" fill="{colour}"/>')
        out.append(f'<text x="{width / 2:.1f}" y="{top + BAR / 2 + 5}" fill="{COLOURS[8]}" text-anchor="middle">{html.escape(title)}</text>')
        for n, line in enumerate(lines):
            draw_line(line, PAD, top + BAR + PAD - 3 + n * CELL_H, out)
        top += height + 14
    with open(path, 'w') as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{top - 14:.0f}" '
                   f'viewBox="0 0 {width:.1f} {top - 14:.1f}" font-size="{FONT}" xml:space="preserve" font-family="ui-monospace, '
                   "SFMono-Regular, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace\">\n"
                   + '\n'.join(out) + '\n</svg>\n')


def main():
    if len(sys.argv) != 3 or not shutil.which('tmux'):
        sys.exit(__doc__)
    middle, end = session(sys.argv[1])
    start = next(n for n, line in enumerate(end) if 'gannet get' in line)
    draw([('gannet get: on its way', middle), ('gannet get: done', end[start:])], sys.argv[2])


main()
