//! The tests of the whole: the built program run as a user runs it, and the library's public face.

mod cases;
mod cat;
mod contrib;
mod download;
mod echo;
mod examples;
mod generate;
mod harness;
mod help;
mod log;
mod readme;
mod serve;
mod startup;
mod surf;
mod tidy;
