//! Ctrl-C: the first asks to stop at the next safe place, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// Installs the handler; the flag becomes true when the user asks to stop.
pub(crate) fn install() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&flag);
    let handler = move || {
        if shared.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
    };
    // Without a handler Ctrl-C simply ends the program: no reason to fail here.
    ctrlc::set_handler(handler).ok();
    flag
}
