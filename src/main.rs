//! The `highwater` command.

use highwater::event_loop::EventLoop;
use highwater::limits::Limits;
use highwater::services::Echo;

fn main() {
    let _ = simplelog::SimpleLogger::init(log::LevelFilter::Info, simplelog::Config::default());
    let mut server = EventLoop::listen(([127, 0, 0, 1], 9000).into(), Limits::default(), Echo).unwrap();
    println!("{}", server.run().unwrap().summary("echoed"));
}
