//! Peers that we fetch from, and that deliver what nobody asked for, lies, nothing, or half of it.

use std::time::{Duration, Instant};

use gannet::session::{Event, State};
use gannet::wire::Message;

use crate::fake::{Ear, Fake, Hello, Said, piece};
use crate::lab::{Lab, MIB, PATIENCE, Payload, SOON, done, until, why_closed, within};

/// W10: blocks that nobody asked for, for pieces that we lack and that we have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w10_blocks_nobody_asked_for() {
    let lab = Lab::new();
    let payload = Payload::file("ten", MIB); // 16 pieces of 4 blocks.
    let ear = Ear::new().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[ear.address]).await;
    // A seeder of the even pieces.
    let mut source = ear.accept(&Hello::new(&payload)).await;
    source.say(&Message::Bitfield(&[0xaa, 0xaa])).await;
    source.say(&Message::Unchoke).await;
    let wrong = vec![0x5a; 16 << 10];
    let mut given = 0;
    while given < 32 {
        let said = source.hear().await.expect("requests");
        let Said::Request(index, begin, len) = said else { continue };
        assert!(index % 2 == 0);
        // Something else first, and the right thing twice, and then something wrong in its place.
        source.give(index | 1, begin, &wrong).await;
        source.give(index, begin, payload.block(index, begin, len)).await;
        source.give(index, begin, payload.block(index, begin, len)).await;
        source.give(index, begin, &wrong).await;
        given += 1;
    }
    until("half is there", || torrent.status().have_pieces == 8).await;
    // Pieces that are verified stay as they are.
    for index in 0..16 {
        source.give(index, 0, &wrong).await;
    }
    assert!(source.until_rejected(1, 0, 1).await.is_some(), "still connected: discarded, no more");
    let status = torrent.status();
    assert_eq!((status.have_pieces, status.downloaded), (8, MIB as u64 / 2));
    assert_eq!(status.wasted, 3 * 32 * 16_384 + 16 * 16_384);
    // What fits into no block of ours ends the connection, and changes nothing.
    for (begin, block) in
        [(1, &wrong[..]), (0, &wrong[..100]), (0, &[][..]), (1 << 31, &wrong[..]), (65_536, &wrong[..])]
    {
        let mut fake = Fake::dial(leecher.address(), &payload).await;
        fake.give(2, begin, block).await;
        within(SOON, "closed", async { while fake.hear().await.is_some() {} }).await;
    }
    drop(source);
    let seeder = lab.seeder("seeder", &payload).await;
    let mut fake = Fake::dial(leecher.address(), &payload).await;
    fake.raw(&[]).await;
    drop(fake);
    leecher.stop().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[seeder.address()]).await;
    done(&torrent).await;
    payload.assert_in(&leecher.folder);
}

/// W11: the only source lies once. It is banned, and an honest one finishes the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w11_the_only_source_lies() {
    let lab = Lab::new();
    let payload = Payload::file("lie", MIB);
    let ear = Ear::new().await;
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[ear.address]).await;
    let mut events = torrent.events();
    let liar = ear.accept(&Hello::new(&payload)).await;
    let lies = payload.clone();
    let liar = tokio::spawn(liar.serve(move |index, begin, len| {
        let mut block = lies.block(index, begin, len).to_vec();
        block[77] ^= u8::from(index == 5 && begin == 32_768);
        Some(block)
    }));
    assert_eq!(why_closed(&mut events, ear.address).await, "sent bad data");
    within(SOON, "the liar is thrown out", liar).await.unwrap();
    let status = torrent.status();
    assert!(status.wasted >= 65_536, "{status:?}");
    // The honest one dials in.
    let honest = Fake::dial(leecher.address(), &payload).await;
    let data = payload.clone();
    let honest = honest.serve(move |index, begin, len| Some(data.block(index, begin, len).to_vec()));
    let (_, ()) = tokio::join!(within(PATIENCE, "the honest one stays to the end", honest), done(&torrent));
    payload.assert_in(&leecher.folder);
}

/// W11: a piece of which one source sent a bad block and another one the rest. The liar alone is banned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w11_one_of_two_sources_lies() {
    let lab = Lab::new();
    let payload = Payload::file("liar", 4 * MIB);
    let (liar_ear, honest_ear) = (Ear::new().await, Ear::new().await);
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[liar_ear.address, honest_ear.address]).await;
    let mut events = torrent.events();
    let mut liar = liar_ear.accept(&Hello::new(&payload)).await;
    let honest = honest_ear.accept(&Hello::new(&payload)).await;
    let lies = payload.clone();
    let (tell, has_lied) = tokio::sync::oneshot::channel();
    let liar = tokio::spawn(async move {
        liar.say(&Message::HaveAll).await;
        liar.say(&Message::Unchoke).await;
        let mut tell = Some(tell);
        while let Some(said) = liar.hear().await {
            let Said::Request(index, begin, len) = said else { continue };
            // One bad block, and nothing else.
            if let Some(tell) = tell.take() {
                let mut block = lies.block(index, begin, len).to_vec();
                block[0] ^= 1;
                liar.give(index, begin, &block).await;
                tell.send(()).unwrap();
            } else {
                liar.say(&Message::Reject { index, begin, len }).await;
            }
        }
    });
    has_lied.await.unwrap();
    let truth = payload.clone();
    let honest = tokio::spawn(honest.serve(move |index, begin, len| Some(truth.block(index, begin, len).to_vec())));
    let mut why = Vec::new();
    done(&torrent).await;
    within(SOON, "both are gone", async { (liar.await.unwrap(), honest.await.unwrap()) }).await;
    within(SOON, "both are told of", async {
        while why.len() < 2 {
            if let Event::PeerClosed { address, reason } = events.recv().await.unwrap() {
                why.push((address, reason));
            }
        }
    })
    .await;
    why.sort_by_key(|(address, _)| *address == honest_ear.address);
    let expected = [(liar_ear.address, "sent bad data".to_owned()), (honest_ear.address, "stopping".to_owned())];
    assert_eq!(why, expected);
    payload.assert_in(&leecher.folder);
}

/// W12: a peer that has everything and delivers nothing does not keep a slower one from finishing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w12_a_peer_that_delivers_nothing() {
    let lab = Lab::new();
    let payload = Payload::file("slow", 2 * MIB);
    let (mute_ear, ear) = (Ear::new().await, Ear::new().await);
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[mute_ear.address]).await;
    let mute = mute_ear.accept(&Hello::new(&payload)).await;
    let (tell, mut asked) = tokio::sync::mpsc::channel(10_000);
    let mute = tokio::spawn(mute.serve(move |_, _, _| {
        let _ = tell.try_send(());
        None
    }));
    within(SOON, "it is asked", asked.recv()).await;
    drop(ear);
    let honest = Fake::dial(leecher.address(), &payload).await;
    let truth = payload.clone();
    let honest = tokio::spawn(honest.serve(move |index, begin, len| Some(truth.block(index, begin, len).to_vec())));
    let start = Instant::now();
    done(&torrent).await;
    assert!(start.elapsed() < Duration::from_secs(15), "took {:?}: waited for the mute one", start.elapsed());
    payload.assert_in(&leecher.folder);
    within(SOON, "both are gone", async { (mute.await.unwrap(), honest.await.unwrap()) }).await;
}

/// W17: connections that break in the middle of things.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w17_resets_and_half_closed_connections() {
    let lab = Lab::new();
    let payload = Payload::file("broken", MIB);
    let leecher = lab.node("leecher").await;
    let torrent = leecher.get(&payload, &[]).await;
    until("it listens", || torrent.status().state == State::Downloading).await;
    for round in 0..6u32 {
        let mut fake = Fake::dial(leecher.address(), &payload).await;
        fake.say(&Message::HaveAll).await;
        fake.say(&Message::Unchoke).await;
        let (index, begin, len) = fake
            .hear_until(|said| match said {
                Said::Request(index, begin, len) => Some((*index, *begin, *len)),
                _ => None,
            })
            .await
            .expect("a request");
        let frame = piece(index, begin, payload.block(index, begin, len));
        match round % 3 {
            // In the body; in the header; in the prefix.
            0 => fake.raw(&frame[..10_000]).await,
            1 => fake.raw(&frame[..9]).await,
            _ => fake.raw(&frame[..2]).await,
        };
        if round < 3 {
            fake.reset();
        } else {
            fake.half_close().await;
            fake.until_closed().await;
        }
        until("it is gone", || torrent.status().peers == 0).await;
    }
    assert_eq!(torrent.status().have_pieces, 0);
    // What the broken ones were asked for is asked of the next one at once.
    let honest = Fake::dial(leecher.address(), &payload).await;
    let truth = payload.clone();
    let start = Instant::now();
    let honest = tokio::spawn(honest.serve(move |index, begin, len| Some(truth.block(index, begin, len).to_vec())));
    done(&torrent).await;
    assert!(start.elapsed() < SOON);
    payload.assert_in(&leecher.folder);
    honest.await.unwrap();
}
