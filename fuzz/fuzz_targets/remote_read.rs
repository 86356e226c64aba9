//! Any bytes as the request of a remote read: no panic, and no more read of it than the bounds say.

#![no_main]

use libfuzzer_sys::fuzz_target;
use query::api::remote_read::request::decode;

fuzz_target!(|message: &[u8]| {
    if let Ok(request) = decode(message) {
        assert!(request.queries.len() <= 1_000 && request.queries.len() <= message.len());
        assert!(request.queries.iter().all(|query| query.matchers.len() <= 1_000));
    }
});
