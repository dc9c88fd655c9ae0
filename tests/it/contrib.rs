//! Manifests in `contrib`: they are valid, and their command lines are those of the program.

use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use crate::harness::program::myapp;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents of a YAML file.
#[track_caller]
fn documents(path: &Path) -> Vec<Yaml> {
    let text = fs::read_to_string(path).unwrap();
    YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The YAML files of a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<_> = paths.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|end| end == "yaml" || end == "yml")
    });
    files.sort();
    files
}

/// The manifest with a kind and a name.
fn manifest(file: &str, kind: &str) -> Yaml {
    let path = root().join("contrib/kubernetes").join(file);
    let is_meant = |document: &Yaml| document["kind"].as_str() == Some(kind);
    documents(&path).into_iter().find(is_meant).unwrap()
}

/// The arguments of the only container of a pod.
fn container(manifest: &Yaml) -> &Yaml {
    let containers = &manifest["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_vec().unwrap().len(), 1);
    &containers[0]
}

fn arguments(container: &Yaml) -> Vec<&str> {
    let arguments = container["args"].as_vec().unwrap();
    arguments
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

#[test]
fn yaml_files_are_valid() {
    let manifests = files("contrib/kubernetes");
    assert!(manifests.len() >= 3, "{manifests:?}");
    for path in manifests {
        for document in documents(&path) {
            for key in ["apiVersion", "kind"] {
                assert!(
                    document[key].as_str().is_some(),
                    "{} lacks {key}",
                    path.display()
                );
            }
            assert!(document["metadata"]["name"].as_str().is_some());
        }
    }
    for path in files(".github/workflows") {
        assert!(
            documents(&path)[0]["jobs"].as_hash().is_some(),
            "{}",
            path.display()
        );
    }
}

/// The image has no shell and no PATH: `args` are those of its entry point.
#[test]
fn command_lines_of_manifests_are_valid() {
    for (file, kind) in [
        ("serve.yaml", "Deployment"),
        ("load.yaml", "Job"),
        ("download.yaml", "Job"),
    ] {
        let manifest = manifest(file, kind);
        let container = container(&manifest);
        assert!(container["command"].is_badvalue(), "{file}");
        let line: Vec<_> = arguments(container)
            .iter()
            .map(|text| text.replace("$(JOB_COMPLETION_INDEX)", "15"))
            .collect();
        // clap checks the options and values before it prints the help, and nothing is run.
        let line = line.iter().map(String::as_str).chain(["--help"]);
        myapp(line).run().code(0).silent();
    }
}

#[test]
fn download_job_has_as_many_shards_as_pods() {
    let manifest = manifest("download.yaml", "Job");
    let spec = &manifest["spec"];
    assert_eq!(spec["completionMode"].as_str(), Some("Indexed"));
    let pods = spec["completions"].as_i64().unwrap();
    let shard = format!("--shard=$(JOB_COMPLETION_INDEX)/{pods}");
    let container = container(&manifest);
    assert!(arguments(container).contains(&shard.as_str()));
    let volumes = spec["template"]["spec"]["volumes"].as_vec().unwrap();
    for mount in container["volumeMounts"].as_vec().unwrap() {
        let is_defined = volumes.iter().any(|volume| volume["name"] == mount["name"]);
        assert!(is_defined, "{mount:?}");
    }
}

#[test]
fn load_job_starts_all_pods_once() {
    let manifest = manifest("load.yaml", "Job");
    let spec = &manifest["spec"];
    assert_eq!(spec["completionMode"].as_str(), Some("Indexed"));
    assert_eq!(spec["completions"], spec["parallelism"]);
    assert_eq!(spec["backoffLimit"].as_i64(), Some(0));
}
