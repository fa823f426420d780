//! The accounts of an exchange allocate nothing once everything is warm.

#[path = "../benches/desk/mod.rs"]
mod desk;

#[test]
fn the_accounts_of_an_exchange_allocate_nothing() {
    let mut desk = desk::Desk::new();
    (0..desk::BOTS).for_each(|_| desk.exchange());
    let counted = allocation_counter::measure(|| (0..desk::BOTS).for_each(|_| desk.exchange()));
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
}
