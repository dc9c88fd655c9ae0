//! Manual pages and shell completions.

use std::fs;
use std::process::Command;

use crate::harness::program::myapp;

const COMMANDS: [&str; 4] = ["serve", "echo", "download", "cat"];

/// Runs a peer program, and returns its output. Warnings are a failure.
#[track_caller]
fn run_quietly(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Writes the completions of a shell to a file, and returns the folder.
fn completions(shell: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = myapp(["completions", shell]).run().code(0).silent().text();
    fs::write(folder.path().join("completions"), text).unwrap();
    folder
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    myapp(["man", pages.to_str().unwrap()])
        .run()
        .code(0)
        .silent();
    let overview = fs::read_to_string(pages.join("myapp.1")).unwrap();
    for command in COMMANDS {
        let page = fs::read_to_string(pages.join(format!("myapp-{command}.1"))).unwrap();
        for section in [
            "SYNOPSIS",
            "OPTIONS",
            "EXAMPLES",
            "EXIT STATUS",
            "ENVIRONMENT",
        ] {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(
                heading.iter().any(|heading| page.contains(heading)),
                "{command}: no section {section}"
            );
        }
        assert!(overview.contains(&format!("myapp\\-{command}(1)")));
    }
    // Each page that the overview refers to exists.
    for reference in overview
        .split("(1)")
        .filter_map(|text| text.rsplit_once(' '))
    {
        let name = reference.1.trim_start_matches("\\fB").replace("\\-", "-");
        if name.starts_with("myapp-") {
            assert!(pages.join(format!("{name}.1")).exists(), "{name}");
        }
    }
}

#[test]
fn unwritable_manual_folder_is_named() {
    myapp(["man", "/dev/null/man"])
        .run()
        .code(3)
        .says("create /dev/null/man: Not a directory");
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let text = myapp(["completions", shell]).run().code(0).silent().text();
        for command in COMMANDS {
            assert!(text.contains(command), "{shell} does not name {command}");
        }
    }
    myapp(["completions", "cmd"]).run().code(2);
}

#[test]
fn hidden_generate_option_still_works() {
    for what in ["man", "complete-bash", "complete-zsh", "complete-fish"] {
        let text = myapp(["--generate", what]).run().code(0).silent().text();
        for command in COMMANDS {
            assert!(text.contains(command), "{what} does not name {command}");
        }
    }
}

#[test]
#[ignore = "peer: groff"]
fn manual_pages_format_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    myapp(["man", folder.path().to_str().unwrap()])
        .run()
        .code(0);
    for command in COMMANDS {
        let page = folder.path().join(format!("myapp-{command}.1"));
        let text = run_quietly(
            Command::new("groff")
                .args(["-man", "-Tutf8", "-ww", "-K", "utf8"])
                .arg(page),
        );
        assert!(text.contains("by SIGINT"), "{text}");
    }
}

#[test]
#[ignore = "peer: bash"]
fn bash_completes_commands_options_files_and_hosts() {
    let folder = completions("bash");
    for name in ["cert.pem", "sums"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::write(folder.path().join("hosts"), "127.0.0.1 scratch-host\n").unwrap();
    let script = "
        . ./completions
        complete -p myapp >/dev/null
        compopt() { :; } # fails outside of a completion
        words() {
            COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _myapp myapp \"${@: -1}\" \"${@: -2:1}\"
            echo \"${COMPREPLY[@]}\"
        }
        words myapp ser
        words myapp download --retry-d
        words myapp serve --tls-cert cert
        words myapp download --checksums su
        words myapp echo --connect scr
        words myapp echo -c scr
        words myapp serve --max-per-ip ce
    ";
    let text = run_quietly(
        Command::new("bash")
            .args(["--norc", "-c", script])
            .env("HOSTFILE", "hosts")
            .current_dir(&folder),
    );
    let expected = "serve --retry-delay cert.pem sums scratch-host scratch-host ce";
    assert_eq!(text.lines().collect::<Vec<_>>().join(" "), expected);
}

#[test]
#[ignore = "peer: zsh"]
fn zsh_offers_files_only_for_files() {
    let folder = completions("zsh");
    let script = "
        autoload -U compinit && compinit -u -d ./dump
        . ./completions
        whence -w _myapp
        grep -c ':SIZE:_default' completions || true
        grep -c -- '--tls-cert=.*:FILE:_files' completions
        grep -c -- '--dir=.*:DIR:_files -/' completions
        grep -c -- '--report=.*:_files' completions
        grep -c -- '--connect=.*:ADDRESS:_hosts' completions
    ";
    let text = run_quietly(
        Command::new("zsh")
            .args(["-f", "-c", script])
            .current_dir(&folder),
    );
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["_myapp: function", "0"]);
    assert!(lines[2..].iter().all(|count| *count != "0"), "{text}");
}

#[test]
#[ignore = "peer: fish"]
fn fish_completes_commands_options_files_and_folders() {
    let folder = completions("fish");
    fs::write(folder.path().join("cert.pem"), "").unwrap();
    fs::create_dir(folder.path().join("cellar")).unwrap();
    let script = "
        source completions
        complete -C 'myapp ser'
        complete -C 'myapp download --retry-d'
        complete -C 'myapp serve --tls-cert cert'
        complete -C 'myapp cat cert'
        complete -C 'myapp download --dir ce'
        complete -C 'myapp serve --max-per-ip ce'
    ";
    let text = run_quietly(
        Command::new("fish")
            .args(["--no-config", "-c", script])
            .env("HOME", folder.path())
            .current_dir(&folder),
    );
    let first_words: Vec<_> = text
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    let expected = ["serve", "--retry-delay", "cert.pem", "cert.pem", "cellar/"];
    assert_eq!(first_words, expected);
}
