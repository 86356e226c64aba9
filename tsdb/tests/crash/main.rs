//! What is left after a crash, to the byte and to the sample: damaged logs, and every moment of a flush at
//! which the power may go.

#[path = "../faulty_store/mod.rs"]
mod faulty_store;

mod each;
mod flush;
mod gone;
mod held;
mod kinds;
mod local_blocks;
mod log;
mod order;
mod stores;
