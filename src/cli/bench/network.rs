//! The network as this machine has it without leaving itself: bytes through a TCP connection on the loopback interface.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use super::super::exit::{Failure, io_words};
use super::Bench;
use super::meter::Meter;
use super::report::cores;
use super::rounds::Rounds;
use super::table::{Row, Table};

/// Bytes written or read at a time: as much as the buffers of the kernel take at once.
const STEP: usize = 256 << 10;

/// Sends `size` bytes, over one connection and over as many as there are cores.
pub(super) fn measure(size: u64, rounds: &mut Rounds, bench: &mut Bench<'_>) -> Result<Table, Failure> {
    let mut table = Table::new("network: bytes over TCP on the loopback interface, nothing else done");
    let counts = if cores() > 1 { vec![1, cores()] } else { vec![1] };
    for &count in &counts {
        let name = if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") };
        table.rows.push(Row::new(name).fact("connections", count));
    }
    while rounds.next(bench)? {
        for (row, &count) in table.rows.iter_mut().zip(&counts) {
            bench.stop.check()?;
            let each = size / count as u64;
            let pairs: io::Result<Vec<_>> = (0..count).map(|_| pair()).collect();
            let pairs = pairs.map_err(|e| refused(&e))?;
            let meter = Meter::start();
            let received = thread::scope(|scope| {
                let threads: Vec<_> = pairs
                    .into_iter()
                    .map(|(sender, receiver)| {
                        scope.spawn(move || send(sender, each));
                        scope.spawn(move || receive(receiver))
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap_or(Ok(0))).sum::<io::Result<u64>>()
            });
            let used = meter.finish();
            let received = received.map_err(|e| refused(&e))?;
            row.add(received, &used);
        }
    }
    Ok(table)
}

fn refused(error: &io::Error) -> Failure {
    Failure::network(format!("loopback: {}; is the loopback interface up?", io_words(error)))
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    Ok((sender, listener.accept()?.0))
}

/// What goes wrong here shows at the other end, as too little.
fn send(mut stream: TcpStream, bytes: u64) {
    let buf = vec![1; STEP];
    let mut left = bytes;
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
        if stream.write_all(&buf[..step]).is_err() {
            return;
        }
        left -= step as u64;
    }
}

fn receive(mut stream: TcpStream) -> io::Result<u64> {
    let mut buf = vec![0; STEP];
    let mut received = 0;
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(received),
            n => received += n as u64,
        }
    }
}
