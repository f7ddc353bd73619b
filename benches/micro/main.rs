//! Times of single functions of the pure core. A machine that others use too
//! makes them swing: compare medians of the same run only.

mod frame;
mod send_queue;

fn main() {
    divan::main();
}
