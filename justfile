# What is typed most; `just` lists it.

default:
    @just --list

# Start Hearth on 127.0.0.1:9494 with data in ./hearth-data
run *args:
    cargo run --release -- {{args}}

# All tests, with the services they need
test *args:
    .ci/test-services
    cargo test --workspace {{args}}

# What a change must pass
ci:
    .ci/run

# Licences, advisories, duplicate crates
deny:
    cargo deny check
