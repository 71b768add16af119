//! A torrent's trackers: carries out what their schedules say.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Inner, Spec, TrackerReport};
use crate::base::InfoHash;
use crate::metainfo::Metainfo;
use crate::net::tracker::TrackerClient;
use crate::torrent::Event;
use crate::tracker::{AnnounceEvent, AnnounceResponse, Job, Schedule, ScheduleConfig, Totals, TrackerError};

/// Answers that may wait. Schedules have one announce per tracker and family under way.
const ANSWERS: usize = 64;

/// The port to announce when peers cannot connect to us, as behind a proxy: trackers take no 0, and nobody listens there.
const NOT_LISTENING: u16 = 1;

/// When we leave: how long answers are waited for that may come or not.
const LATE_ANSWERS: Duration = Duration::from_millis(500);

/// An announce that has come to an end.
pub(super) struct Answer {
    swarm: usize,
    job: Job,
    result: Result<AnnounceResponse, TrackerError>,
}

/// What an answer brought.
#[derive(Default)]
pub(super) struct Found {
    pub(super) peers: Vec<SocketAddr>,
    /// Who told of them.
    pub(super) told_by: Option<IpAddr>,
    pub(super) external: Option<SocketAddr>,
}

/// The schedules of one torrent. A hybrid torrent is in two swarms, and has two.
pub(super) struct Trackers {
    schedules: Vec<Schedule>,
    /// By which name of the torrent each of them announces.
    names: Vec<[u8; 20]>,
    tiers: Vec<Vec<String>>,
    config: ScheduleConfig,
    /// Where we listen, on IPv4 and IPv6.
    own_ports: [Option<u16>; 2],
    seed: u64,
    client: TrackerClient,
    sender: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
}

impl Trackers {
    pub(super) fn new(now: Instant, spec: &Spec, client: TrackerClient, seed: u64) -> Self {
        let origin = &spec.torrent.origin;
        let mut tiers = if spec.use_trackers { origin.announce() } else { vec![] };
        if spec.use_trackers {
            tiers.extend(spec.torrent.extra_trackers.iter().map(|url| vec![url.clone()]));
        }
        let listening = |v4: bool| spec.listen.iter().find(|a| a.is_ipv4() == v4).map(SocketAddr::port);
        let port = |v4: bool| if spec.listen.is_empty() { v4.then_some(NOT_LISTENING) } else { listening(v4) };
        let config = ScheduleConfig {
            info_hash: [0; 20],
            peer_id: spec.peer_id,
            key: u32::try_from(seed >> 32).unwrap_or(0),
            port_v4: port(true),
            port_v6: port(false),
            private: origin.is_private(),
        };
        let (sender, answers) = mpsc::channel(ANSWERS);
        let (schedules, names) = (Vec::new(), Vec::new());
        let own_ports = [config.port_v4, config.port_v6];
        let mut trackers = Self { schedules, names, tiers, config, own_ports, seed, client, sender, answers };
        trackers.join_swarms(now, &origin.info_hash());
        trackers
    }

    /// Announces by every name of the torrent.
    fn join_swarms(&mut self, now: Instant, info_hash: &InfoHash) {
        for name in info_hash.wire_forms().filter(|name| !self.names.contains(name)).collect::<Vec<_>>() {
            let config = ScheduleConfig { info_hash: name, ..self.config };
            self.schedules.push(Schedule::new(now, &self.tiers, config, self.seed));
            self.names.push(name);
        }
    }

    /// It is known what the torrent is.
    pub(super) fn handle_metainfo(&mut self, now: Instant, metainfo: &Metainfo) {
        if metainfo.info.is_private() {
            self.config.private = true;
            self.schedules.iter_mut().for_each(Schedule::set_private);
        }
        self.join_swarms(now, &metainfo.info.info_hash());
    }

    /// Starts the announces that are due. Returns how many of them say that we leave.
    pub(super) fn poll(&mut self, now: Instant, totals: Totals) -> usize {
        let mut leaving = 0;
        for (swarm, schedule) in self.schedules.iter_mut().enumerate() {
            while let Some(job) = schedule.poll(now, totals) {
                leaving += usize::from(job.announce.event == AnnounceEvent::Stopped);
                let (client, sender) = (self.client.clone(), self.sender.clone());
                tokio::spawn(async move {
                    let result = client.announce(&job).await;
                    // If nobody listens any more, the torrent has stopped.
                    let _ = sender.send(Answer { swarm, job, result }).await;
                });
            }
        }
        leaving
    }

    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.schedules.iter().filter_map(|schedule| schedule.poll_timeout(now)).min()
    }

    /// The next announce that has come to an end.
    pub(super) async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // Never: a sender is held here.
            None => std::future::pending().await,
        }
    }

    pub(super) fn handle_answer(&mut self, now: Instant, answer: Answer, inner: &Inner) -> Found {
        let Answer { swarm, job, result } = answer;
        let Some(schedule) = self.schedules.get_mut(swarm) else { return Found::default() };
        let next = schedule.handle_result(now, job.id, result.as_ref());
        let response = result.as_ref().ok();
        inner.tell(Event::Tracker(TrackerReport {
            tracker: job.tracker.to_string(),
            outcome: result.as_ref().map(|r| r.peers.len()).map_err(ToString::to_string),
            seeders: response.and_then(|r| r.seeders),
            leechers: response.and_then(|r| r.leechers),
            next: next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)),
        }));
        match result {
            Ok(response) => {
                if let Some(message) = response.warning {
                    inner.tell(Event::Warning { message: format!("{}: {message}", job.tracker) });
                }
                let external = response.external_ip.map(|ip| SocketAddr::new(ip, job.announce.port));
                Found { peers: response.peers, told_by: response.from, external }
            }
            Err(error) => {
                tracing::info!(tracker = %job.tracker, family = %job.family, %error, "no answer");
                Found::default()
            }
        }
    }

    /// Peers find us at these ports; none is where we listen.
    pub(super) fn set_outside_ports(&mut self, now: Instant, port_v4: Option<u16>, port_v6: Option<u16>) {
        let [own_v4, own_v6] = self.own_ports;
        (self.config.port_v4, self.config.port_v6) = (own_v4.and(port_v4).or(own_v4), own_v6.and(port_v6).or(own_v6));
        for schedule in &mut self.schedules {
            schedule.set_ports(now, self.config.port_v4, self.config.port_v6);
        }
    }

    pub(super) fn handle_completed(&mut self, now: Instant) {
        self.schedules.iter_mut().for_each(|schedule| schedule.handle_completed(now));
    }

    pub(super) fn want_more_peers(&mut self, now: Instant) {
        self.schedules.iter_mut().for_each(|schedule| schedule.want_more_peers(now));
    }

    /// Tells trackers that we leave, and waits for their answers until `deadline`.
    pub(super) async fn stop(&mut self, totals: Totals, deadline: Instant) {
        self.schedules.iter_mut().for_each(Schedule::stop);
        let patience = (Instant::now() + LATE_ANSWERS).min(deadline);
        let mut leaving = self.poll(Instant::now(), totals);
        while !self.schedules.iter().all(Schedule::is_stopped) {
            // Somebody waits for us to end: a tracker that has not answered a `started` so far will hardly be one that
            // should hear more.
            let heard = leaving > 0 || self.schedules.iter().any(Schedule::is_heard);
            let until = if heard { deadline } else { patience };
            let Ok(answer) = tokio::time::timeout_at(until.into(), self.answer()).await else { return };
            let Answer { swarm, job, result } = answer;
            if job.announce.event == AnnounceEvent::Stopped {
                leaving -= 1;
            }
            if let Some(schedule) = self.schedules.get_mut(swarm) {
                schedule.handle_result(Instant::now(), job.id, result.as_ref());
            }
            leaving += self.poll(Instant::now(), totals);
        }
    }
}
