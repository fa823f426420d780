//! What the accounts of one exchange cost on the hot path: `cargo bench
//! --bench accounting`. The control plane is not part of it, the disk is.

mod desk;

use criterion::{Criterion, criterion_group, criterion_main};

/// As in the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn accounting(criterion: &mut Criterion) {
    let mut desk = desk::Desk::new();
    criterion.bench_function("hold four quotas, OPEN, SETTLE", |bench| bench.iter(|| desk.exchange()));
}

criterion_group!(benches, accounting);
criterion_main!(benches);
