//! One quota on one node: what is held, claimed, given back and remembered.

use super::*;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

fn slice() -> Arc<Slice> {
    Arc::new(Slice::new("quo_1".into()))
}

fn granted(start: i64, ends: i64, granted: u64) -> Granted {
    let standing = Standing { limit: 1000, ..Standing::default() };
    Granted { window_start_micros: start, ends, granted, usable_until: i64::MAX, standing, ..Granted::default() }
}

fn claims(slice: &Slice, now: i64) -> Vec<Claim> {
    let mut out = Vec::new();
    slice.claims(now, &mut out);
    out
}

#[test]
fn a_cold_quota_asks_for_what_waits_and_some_stock() {
    let slice = slice();
    assert!(claims(&slice, 0).is_empty() && slice.hold(100, 0).is_none());
    let waits = slice.short(100);
    let cold = claims(&slice, 0);
    assert_eq!((cold[0].window_start_micros, cold[0].want, cold[0].least), (0, 500, 100));
    assert!(claims(&slice, 0).is_empty(), "said once");
    slice.renew(&granted(7, i64::MAX, 500), 0);
    drop(waits);
    let held = slice.hold(100, 0).expect("there is enough");
    assert_eq!((held.quota_id(), held.window_start_micros(), held.amount()), ("quo_1", 7, 100));
    held.settle(40);
    let window = slice.window(0).expect("named");
    assert_eq!((window.free(), window.used(), window.held()), (460, 40, 0));
}

#[test]
fn what_is_dropped_is_given_back() {
    let slice = slice();
    slice.renew(&granted(7, i64::MAX, 100), 0);
    let mut held = slice.hold(60, 0).expect("fits");
    assert!(held.extend(40, 0) && !held.extend(1, 0));
    drop(held);
    assert_eq!(slice.window(0).map(|w| (w.free(), w.used())), Some((100, 0)));
}

#[test]
fn a_window_that_is_over_makes_room_for_the_next_and_keeps_its_own() {
    let slice = slice();
    slice.renew(&granted(1, MINUTE, 1000), 0);
    let late = slice.hold(10, MINUTE - 1).expect("fits");
    let asked = claims(&slice, MINUTE - 1);
    assert!(asked.iter().any(|claim| claim.next && claim.window_start_micros == 1), "{asked:?}");
    slice.renew(&Granted { next: true, ..granted(2, 2 * MINUTE, 50) }, MINUTE - 1);
    assert!(!claims(&slice, MINUTE - 1).iter().any(|claim| claim.next), "asked once");
    let first = slice.hold(50, MINUTE).expect("of the next window");
    assert_eq!((late.window_start_micros(), first.window_start_micros()), (1, 2));
    let told = claims(&slice, MINUTE);
    let past = told.iter().find(|claim| claim.window_start_micros == 1).expect("what is left goes back");
    assert_eq!((past.returned, past.held), (990, 10));
    late.settle(3);
    assert!(slice.has_lease());
    drop(first);
}

#[test]
fn a_window_that_is_named_again_remembers_what_was_used() {
    let slice = slice();
    slice.renew(&granted(1, MINUTE, 100), 0);
    slice.hold(95, 0).expect("fits").settle(95);
    // Over by our clock; by the control plane's, which is behind, it is not.
    assert_eq!(claims(&slice, MINUTE).len(), 1);
    slice.renew(&Granted { returned: 5, ..granted(1, 2 * MINUTE, 107) }, MINUTE);
    assert_eq!(slice.window(MINUTE).map(|w| (w.used(), w.free())), Some((95, 7)));
    assert!(slice.hold(8, MINUTE).is_none());
}

#[test]
fn an_idle_slice_goes_back() {
    let slice = slice();
    slice.renew(&granted(1, i64::MAX, 100), 0);
    slice.hold(10, 0).expect("fits").settle(10);
    assert!(slice.has_lease());
    let told = claims(&slice, 2 * IDLE);
    assert_eq!((told.len(), told[0].returned, told[0].used, told[0].want), (1, 90, 10, 0));
    assert!(!slice.has_lease() && claims(&slice, 2 * IDLE).is_empty());
}

#[test]
fn what_others_are_short_of_goes_back_unless_held() {
    let slice = slice();
    slice.renew(&granted(1, i64::MAX, 100), 0);
    let held = slice.hold(70, 0).expect("fits");
    let waits = slice.short(70);
    slice.renew(&Granted { recall: 50, ..granted(1, i64::MAX, 150) }, 0);
    assert_eq!(slice.window(0).map(|w| (w.free(), w.returned())), Some((70, 10)), "who waits can use it");
    drop(waits);
    slice.renew(&Granted { recall: 50, ..granted(1, i64::MAX, 150) }, 0);
    assert_eq!(slice.window(0).map(|w| (w.free(), w.returned(), w.held())), Some((20, 60, 70)));
    drop(held);
}

#[test]
fn a_quota_that_is_gone_holds_nothing() {
    let slice = slice();
    slice.renew(&granted(1, i64::MAX, 100), 0);
    slice.forget();
    assert!(slice.is_gone() && claims(&slice, 0).is_empty());
    let used = slice.hold(30, 0).expect("there is a window still");
    used.settle(30);
    slice.renew(&granted(1, i64::MAX, 100), 0);
    assert!(!slice.is_gone());
    assert_eq!(slice.window(0).map(|w| w.free()), Some(70), "what was used is not granted again");
}

#[test]
fn an_allowance_is_given_once_per_outage() {
    let slice = slice();
    assert!(slice.allow(60, 100) && !slice.allow(60, 100) && slice.allow(40, 100));
    slice.renew(&granted(1, i64::MAX, 0), 0);
    assert!(slice.allow(100, 100));
}

#[tokio::test]
async fn who_waits_hears_of_what_comes_back() {
    let slice = slice();
    slice.renew(&granted(1, i64::MAX, 100), 0);
    let held = slice.hold(100, 0).expect("fits");
    let short = slice.short(10);
    let heard = short.changed();
    drop(held);
    heard.await;
    assert!(slice.hold(10, 0).is_some());
}
