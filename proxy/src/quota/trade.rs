//! Claims and leases as messages.
//!
//! The control plane's times are unix microseconds by its own clock; here they
//! become times of this machine's boot clock, counted from when the call was
//! made, so that an answer that was long under way shortens a lease and never
//! lengthens it.

use clawgate_shared::proto::node::{Lease, LeaseClaim, LeaseReply};

use crate::limits::{Claim, Granted, Slices, Standing};

/// As the node protocol says it.
pub fn message(claim: &Claim) -> LeaseClaim {
    LeaseClaim {
        quota_id: claim.quota_id.to_string(),
        window_start_micros: claim.window_start_micros,
        next: claim.next,
        granted: claim.granted,
        returned: claim.returned,
        used: claim.used,
        held: claim.held,
        want: claim.want,
        least: claim.least,
    }
}

/// Takes the answer to `claims`, asked at `asked` and arrived at `now`. Leases
/// beyond those of the claims are such that others are short of. Says whether
/// any was.
pub fn take(slices: &Slices, claims: &[Claim], reply: LeaseReply, asked: i64, now: i64) -> bool {
    slices.control_time(reply.control_time_micros, asked);
    let usable_until = asked.saturating_add(micros(reply.usable_millis));
    let mut recalled = false;
    for (at, lease) in reply.leases.iter().enumerate() {
        if lease.gone {
            slices.forget(&lease.quota_id);
            continue;
        }
        let next = claims.get(at).is_some_and(|claim| claim.next && *claim.quota_id == lease.quota_id);
        recalled |= lease.recall > 0;
        let granted = granted(lease, next, usable_until, reply.control_time_micros, asked, now);
        slices.renew(&lease.quota_id, &granted, now);
    }
    recalled
}

fn granted(lease: &Lease, next: bool, usable_until: i64, control_time: i64, asked: i64, now: i64) -> Granted {
    let ends = match lease.window_end_micros {
        0 => i64::MAX,
        end => asked.saturating_add(end.saturating_sub(control_time)),
    };
    Granted {
        window_start_micros: lease.window_start_micros,
        ends,
        next,
        granted: lease.granted,
        returned: lease.returned,
        usable_until,
        standing: Standing { limit: lease.limit, settled: lease.settled, outstanding: lease.outstanding, at: now },
        recall: lease.recall,
    }
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_counted_from_when_it_was_asked_for() {
        let slices = Slices::default();
        let slice = slices.of("quo_1");
        let lease = Lease {
            quota_id: "quo_1".into(),
            window_start_micros: 5_000,
            window_end_micros: 9_000,
            granted: 40,
            limit: 100,
            settled: 7,
            outstanding: 40,
            ..Lease::default()
        };
        let reply = LeaseReply { leases: vec![lease.clone()], control_time_micros: 6_000, usable_millis: 2 };
        assert!(!take(&slices, &[], reply, 100, 300));
        let window = slice.window(300).expect("named");
        assert_eq!((window.start_micros(), window.ends(), window.free()), (5_000, 3_100, 40));
        assert!(window.is_usable(2_099) && !window.is_usable(2_100));
        assert_eq!(window.standing(), Standing { limit: 100, settled: 7, outstanding: 40, at: 300 });
        let recall = Lease { recall: 30, window_end_micros: 0, ..lease.clone() };
        let reply = LeaseReply { leases: vec![recall], control_time_micros: 6_000, usable_millis: 2 };
        assert!(take(&slices, &[], reply, 100, 300));
        assert_eq!((window.free(), window.ends()), (10, i64::MAX));
        let gone = Lease { gone: true, ..lease };
        take(&slices, &[], LeaseReply { leases: vec![gone], ..LeaseReply::default() }, 100, 300);
        assert!(slice.is_gone());
    }
}
