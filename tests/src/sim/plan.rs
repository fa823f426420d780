//! What one seed does: which faults it has, how often, and the quotas that are
//! at stake. A seed that has few kinds of faults goes deeper into those.

use clawgate_control::store::types::QuotaWindow;

use super::rng::Rng;

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Instants near which windows end: midnight, and the night in which clocks in
/// Berlin go forward. Unix microseconds.
const BEGINNINGS: [i64; 3] = [1_774_656_000 * SECOND, 1_774_742_400 * SECOND, 1_775_001_600 * SECOND];
const ZONES: [&str; 3] = ["UTC", "Europe/Berlin", "Australia/Lord_Howe"];
const WINDOWS: [QuotaWindow; 4] = [QuotaWindow::Minute, QuotaWindow::Hour, QuotaWindow::Day, QuotaWindow::Total];

/// How often things happen; in thousandths of the chances there are. 0: never.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Unix microseconds.
    pub begin: i64,
    /// Operations before everything heals.
    pub steps: u32,
    /// Of the tenant.
    pub zone: &'static str,
    /// The window of each quota; the last one counts requests.
    pub windows: Vec<QuotaWindow>,
    /// Of each token quota.
    pub limit: i64,
    /// The most a request holds.
    pub most: i64,
    /// Logs of each node's spool.
    pub shards: u32,
    /// Bytes of each node's spool.
    pub spool_bytes: u64,
    /// Records of one batch.
    pub batch: usize,
    /// A message is lost.
    pub lose: u64,
    /// A message comes twice.
    pub twice: u64,
    /// A message is much later than others.
    pub late: u64,
    /// A node's process dies.
    pub kill: u64,
    /// A node's machine loses its power.
    pub power: u64,
    /// A node is cut off, or no longer.
    pub partition: u64,
    /// A node is replaced by a new process while it runs.
    pub handover: u64,
    /// A copy of a node's machine starts, or ends.
    pub zombie: u64,
    /// The control plane dies at a transaction.
    pub crash: u64,
    /// The control plane is put back to a backup.
    pub restore: u64,
    /// A limit changes, or something is granted on top.
    pub change: u64,
    /// A clock is set.
    pub clock: u64,
    /// A disk is full, tears a write, or does not sync.
    pub disk: u64,
    /// Nothing happens for minutes.
    pub pause: u64,
    /// How much longer than usual it takes from one thing to the next: where it
    /// is much, leases run out between two calls.
    pub slow: i64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(rng: &mut Rng) -> Self {
        let mut some = |rate: u64| if rng.chance(400) { 1 + rng.below(rate) } else { 0 };
        let (lose, twice, late) = (some(150), some(150), some(150));
        let (kill, power, partition) = (some(25), some(40), some(30));
        let (handover, zombie, crash) = (some(15), some(12), some(60));
        let (restore, change, clock) = (some(6), some(15), some(20));
        let (disk, pause) = (some(30), some(12));
        let slow = if rng.chance(250) { rng.range(10, 80) } else { 1 };
        let quotas = 1 + rng.index(2);
        let mut windows: Vec<QuotaWindow> = (0..quotas).map(|_| rng.pick(&WINDOWS)).collect();
        if rng.chance(300) {
            windows.push(QuotaWindow::Total);
        }
        let most = rng.range(20, 900);
        Self {
            begin: rng.pick(&BEGINNINGS) - rng.range(1, 90) * SECOND,
            steps: 120 + u32::try_from(rng.below(160)).unwrap_or(0),
            zone: rng.pick(&ZONES),
            windows,
            limit: most * rng.range(3, 40),
            most,
            shards: if rng.chance(500) { 1 } else { 2 },
            spool_bytes: if rng.chance(200) { 48 << 10 } else { 1 << 20 },
            batch: 1 + rng.index(40),
            lose,
            twice,
            late,
            kill,
            power,
            partition,
            handover,
            // A copy tells itself apart by being alone at the control plane only
            // as long as the original is there.
            zombie: if partition + kill + power + crash + handover + restore == 0 { zombie * 4 } else { 0 },
            crash,
            restore,
            change,
            clock,
            disk,
            pause,
            slow,
        }
    }

    /// The same without faults: what is left is to come to rest.
    pub fn heal(&mut self) {
        (self.lose, self.twice, self.late, self.crash, self.disk) = (0, 0, 0, 0, 0);
    }
}
