//! File names.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn url_names_are_sanitized() {
    for (path, name) in [
        ("/a%20b?c#d", "a b"),
        ("/", "index.html"),
        ("/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/..%5Cx", "x"),
        ("/%2Ftmp%2Fabs", "abs"),
        ("/a%00b%1Bc", "a_b_c"),
        ("/%E2%80%AEx", "_x"),
        ("/-rf", "_-rf"),
        ("/.bashrc", ".bashrc"),
        ("/CON", "CON"),
    ] {
        let folder = Folder::new();
        let server = Server::start(|_| ok());
        fetch(&folder, [&server.url(path)]).code(0);
        assert_eq!(folder.names(), [name], "{path}");
    }
}

#[test]
fn long_url_name_is_shortened() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    let long = server.url(&format!("/{}.tar", "x".repeat(396)));
    fetch(&folder, [&long, &long]).code(0);
    let lengths: Vec<_> = folder.names().iter().map(String::len).collect();
    assert_eq!(lengths, [245, 245]);
    assert!(folder.names().iter().any(|name| name.ends_with(".tar")));
    assert!(folder.names().iter().any(|name| name.ends_with(".tar.1")));
}

#[test]
fn concurrent_urls_with_one_name_get_separate_files() {
    let folder = Folder::new();
    let server = Server::start(|request| Response::body(request.path.as_bytes()));
    let urls: Vec<_> = (0..20)
        .map(|number| server.url(&format!("/{number}/f")))
        .collect();
    let line = ["download", "-j8"]
        .into_iter()
        .chain(urls.iter().map(String::as_str));
    folder.myapp(line).run().code(0);
    let mut bodies: Vec<_> = folder
        .names()
        .iter()
        .map(|name| folder.read(name))
        .collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20);
}

#[test]
fn existing_path_is_never_replaced() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    let target = folder.write("target", "mine");
    folder.write("file", "mine");
    fs::create_dir(folder.path("folder")).unwrap();
    symlink(&target, folder.path("link")).unwrap();
    symlink(&target, folder.path("f.part")).unwrap();
    for (name, saved) in [
        ("file", "file.1"),
        ("folder", "folder.1"),
        ("link", "link.1"),
        ("f", "f"),
    ] {
        fetch(&folder, [&server.url(&format!("/{name}"))])
            .code(0)
            .says(&format!("saved {saved}: "));
        assert_eq!(folder.read(saved), b"good");
    }
    assert_eq!(
        (folder.read("target"), folder.read("file")),
        (b"mine".to_vec(), b"mine".to_vec())
    );
}

#[test]
fn part_of_a_killed_run_is_restarted() {
    let folder = Folder::new();
    let large = Response::body(seeded(1, LARGE)).truncated_at(LARGE / 2);
    let broken = Server::start(move |_| large.clone());
    fetch(&folder, ["--retry=0", &broken.url("/f")]).code(4);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    let server = Server::start(|_| ok());
    fetch(&folder, [&server.url("/f")]).code(0);
    assert_eq!(
        (folder.names(), folder.read("f")),
        (vec!["f".into()], b"good".to_vec())
    );
}

/// Browsers use the same suffix, and a server may have a file of that name.
#[test]
fn foreign_part_file_is_never_removed() {
    let folder = Folder::new();
    let server = Server::start(|_| ok());
    folder.write("f.part", "of a browser");
    for options in [&["-j1"][..], &["-j1", "-c"], &["-j1", "--overwrite"]] {
        let part = server.url("/g.part");
        let whole = server.url("/g");
        let own = server.url("/f");
        let line = [&["download"], options, &[&part, &whole, &own]].concat();
        folder.myapp(line).run().code(0);
        for name in ["f", "g", "g.part_"] {
            assert_eq!(folder.read(name), b"good", "{name} with {options:?}");
            fs::remove_file(folder.path(name)).unwrap();
        }
        assert_eq!(
            (folder.names(), folder.read("f.part")),
            (vec!["f.part".into()], b"of a browser".to_vec())
        );
    }
}

#[test]
fn concurrent_processes_get_separate_files() {
    let body = seeded(3, LARGE);
    let slow = Response::body(body.clone()).delayed(Duration::from_millis(300));
    let folder = Folder::new();
    let server = Server::with_paths([("/f", slow)]);
    let first = folder.myapp(["download", &server.url("/f")]).start();
    server.wait_for(1);
    fetch(&folder, [&server.url("/f")]).code(0);
    first.wait().code(0);
    assert_eq!(folder.names(), ["f", "f.1"]);
    assert!(folder.read("f") == body && folder.read("f.1") == body);
}
