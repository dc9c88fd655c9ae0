//! The command line and the log, as far as all commands share them.

use crate::harness::myapp;

#[test]
fn a_command_that_does_not_exist_is_a_usage_error() {
    myapp(["serv"]).run().code(2).prints("").says("myapp: unrecognized subcommand 'serv'");
    myapp::<&str>([]).run().code(2).says("Usage");
}

#[test]
fn a_log_filter_that_is_none_is_a_usage_error() {
    myapp(["serve", "0"]).env("MYAPP_LOG", "a=b=c").run().code(2).says("MYAPP_LOG");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    myapp(["serve", "--log-file", "/no/such/folder/x", "0"])
        .run()
        .code(3)
        .says("open log file /no/such/folder/x: No such file or directory");
}

#[test]
fn the_manual_and_the_completions_name_every_command() {
    for what in ["man", "complete-bash", "complete-zsh", "complete-fish"] {
        let text = myapp(["--generate", what]).run().code(0).silent().text();
        for command in ["serve", "echo", "download", "cat"] {
            assert!(text.to_lowercase().contains(command), "{what} does not name {command}");
        }
    }
}
