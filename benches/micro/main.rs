//! Times of single functions of the pure core. Times swing on a shared machine:
//! compare medians of the same run only.

mod frame;
mod send_queue;

fn main() {
    divan::main();
}
