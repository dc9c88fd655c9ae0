//! What is shown: byte for byte what GNU shows.

use super::*;

#[test]
fn a_thousand_random_runs_show_what_gnu_cat_shows() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::new();
    let names: Vec<_> = (0..8).map(|n| format!("file {n}")).collect();
    for run in 0..1000 {
        if run % 10 == 0 {
            names.iter().for_each(|name| drop(folder.write(name, nasty(&mut random))));
        }
        let mut arguments: Vec<String> = Vec::new();
        for _ in 0..random.usize(..4) {
            arguments.push(format!("-{}", random.choice(*b"AbeEnstTuv").unwrap() as char));
        }
        for _ in 0..random.usize(..5) {
            arguments.push(match random.u8(..10) {
                0..2 => "-".to_owned(),
                2 => "no such file".to_owned(),
                _ => random.choice(&names).unwrap().clone(),
            });
        }
        let stdin = nasty(&mut random);
        let wanted = gnu(&folder, &arguments, &stdin);
        let mut ours = vec!["cat".to_owned()];
        ours.extend(arguments);
        let ran = folder.myapp(&ours).stdin(&stdin).run();
        let same = ran.stdout == wanted.stdout && ran.status.code() == wanted.status.code();
        assert!(same, "seed {seed}, run {run}: {ours:?} differs; {}", ran.stderr);
    }
}

#[test]
fn long_names_mean_what_the_short_ones_mean() {
    let folder = Folder::new();
    folder.write("a", b"a\t\x01\r\n\n\n\xff");
    for (long, short) in [
        ("--show-all", "-A"),
        ("--number-nonblank", "-b"),
        ("--show-ends", "-E"),
        ("--number", "-n"),
        ("--squeeze-blank", "-s"),
        ("--show-tabs", "-T"),
        ("--show-nonprinting", "-v"),
    ] {
        let wanted = gnu(&folder, &[short.to_owned(), "a".to_owned()], b"").stdout;
        folder.myapp(["cat", long, "a"]).run().code(0).prints(wanted).silent();
    }
}
