//! The examples: each runs to its end, those of the tutorial chapter print its texts, and their
//! size and imports stay within limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use Output::{Interleaved, Ordered};

/// Sections of the chapter that contain code.
const SECTIONS_WITH_CODE: [&str; 10] = [
    "6.2.1", "6.2.2", "6.3.2", "6.4.1", "6.4.2", "6.5.1", "6.5.2", "6.6.2", "6.6.3", "6.6.5",
];

/// Expected output of an example. `#` is a port or a measured value.
enum Output {
    /// All lines, in this order.
    Ordered(&'static [&'static str]),
    /// All lines, in the order of each of these sequences.
    Interleaved(&'static [&'static [&'static str]]),
}

/// Examples of the chapter, in its order.
const CHAPTER: [(&str, Output); 12] = [
    (
        "6-2-1-blocking-reads",
        Ordered(&[
            "Inicio de la lectura del archivo: example1.txt",
            "Archivo example1.txt leído.",
            "Inicio de la lectura del archivo: example2.txt",
            "Archivo example2.txt leído.",
            "Tiempo total de lectura: # segundos",
        ]),
    ),
    (
        "6-2-2-concurrent-reads",
        Interleaved(&[
            &[
                "Inicio de la lectura del archivo: example1.txt",
                "Inicio de la lectura del archivo: example2.txt",
                "Archivo example1.txt leído.",
                "Tiempo total de lectura: # segundos",
            ],
            &["Archivo example2.txt leído."],
        ]),
    ),
    (
        "6-3-2-echo-server-and-clients",
        Interleaved(&[
            &[
                "Servidor iniciado en 127.0.0.1:#",
                "Enviando: ¡Hola, servidor!",
                "Recibido de 127.0.0.1:#: ¡Hola, servidor!",
                "Recibido: ¡Hola, servidor!",
            ],
            &[
                "Enviando: ¿Cómo estás?",
                "Recibido de 127.0.0.1:#: ¿Cómo estás?",
                "Recibido: ¿Cómo estás?",
            ],
            &[
                "Enviando: ¡La asincronía es genial!",
                "Recibido de 127.0.0.1:#: ¡La asincronía es genial!",
                "Recibido: ¡La asincronía es genial!",
            ],
            &[
                "Nueva conexión: 127.0.0.1:#",
                "Conexión cerrada: 127.0.0.1:#",
            ],
            &[
                "Nueva conexión: 127.0.0.1:#",
                "Conexión cerrada: 127.0.0.1:#",
            ],
            &[
                "Nueva conexión: 127.0.0.1:#",
                "Conexión cerrada: 127.0.0.1:#",
            ],
            &[
                "Cerrando conexión",
                "Cerrando conexión",
                "Cerrando conexión",
            ],
        ]),
    ),
    (
        "6-4-1-read-lines",
        Ordered(&[
            "Leyendo línea: Línea 1",
            "Leyendo línea: Línea 2",
            "Leyendo línea: Línea 3",
        ]),
    ),
    (
        "6-4-2-write-lines",
        Ordered(&[
            "Línea escrita: Línea 1",
            "Línea escrita: Línea 2",
            "Línea escrita: Línea 3",
            "output.txt: 3 líneas",
        ]),
    ),
    (
        "6-5-1-downloads",
        Interleaved(&[
            &["Archivo file1.jpg descargado."],
            &["Archivo file2.jpg descargado."],
            &["Archivo file3.jpg descargado."],
        ]),
    ),
    (
        "6-5-2-reply-server",
        Interleaved(&[
            &[
                "Servidor iniciado en 127.0.0.1:#",
                "Recibido de 127.0.0.1:#: Hola",
                "Dijiste: Hola",
            ],
            &[
                "Recibido de 127.0.0.1:#: ¿Cómo estás?",
                "Dijiste: ¿Cómo estás?",
            ],
            &["Recibido de 127.0.0.1:#: Adiós", "Dijiste: Adiós"],
            &[
                "Nueva conexión: 127.0.0.1:#",
                "Conexión cerrada: 127.0.0.1:#",
            ],
            &[
                "Nueva conexión: 127.0.0.1:#",
                "Conexión cerrada: 127.0.0.1:#",
            ],
            &[
                "Nueva conexión: 127.0.0.1:#",
                "Conexión cerrada: 127.0.0.1:#",
            ],
        ]),
    ),
    (
        "6-6-1-blocking-calls",
        Ordered(&[
            "thread::sleep: 0 tics",
            "smol::Timer: # tics",
            "smol::unblock: # tics",
        ]),
    ),
    (
        "6-6-2-errors-and-timeouts",
        Ordered(&[
            // 100 characters and not 100 bytes; the space at the end is trimmed.
            "Página servida en el propio equipo. Página servida en el propio equipo. \
             Página servida en el propio",
            "Error al obtener http://127.0.0.1:#/404: Not Found",
            "Tiempo de espera agotado al obtener http://127.0.0.1:#/lento",
            "Error al obtener http://www.urlinexistente.invalid: resolve www.urlinexistente.invalid",
        ]),
    ),
    (
        "6-6-3-semaphore",
        Ordered(&["Recibidas 10 respuestas.", "Máximo 3 simultáneamente"]),
    ),
    (
        "6-6-4-drop-flush-close",
        Ordered(&[
            "drop: 0 bytes en el archivo",
            "flush: 4 bytes en el archivo",
            "close: 8 bytes en el archivo",
            "close en un socket: 0 bytes, luego \"respuesta\"",
        ]),
    ),
    (
        "6-6-5-logging",
        Ordered(&[
            "INFO Descargado http://127.0.0.1:# con 3600 caracteres",
            "ERROR Error al obtener http://127.0.0.1:#/404: Not Found",
            "registro.log:",
            "DEBUG 6_6_5_logging: Solicitando http://127.0.0.1:#",
            "INFO 6_6_5_logging: Descargado http://127.0.0.1:# con 3600 caracteres",
            "DEBUG 6_6_5_logging: Solicitando http://127.0.0.1:#/404",
            "ERROR 6_6_5_logging: Error al obtener http://127.0.0.1:#/404: Not Found",
        ]),
    ),
];

/// Examples of the library, each with a text that it prints.
const LIBRARY: [(&str, &str); 10] = [
    ("library-cat", "3 files, 1 failed, 53 bytes"),
    ("library-concurrency", "at most 3 at once"),
    ("library-download", "5 saved, 1 failed"),
    ("library-echo", "1: first\n2: second\n3: third"),
    ("library-http-client", "/lento: silent for 500ms"),
    ("library-logging", "\"message\":\"stopped\""),
    ("library-prefix", "long You said: long"),
    ("library-serve", "3 messages on 1 connection"),
    ("library-shutdown", "100 of 100 replies complete"),
    ("tour", "12 files, 44400 bytes"),
];

const MIN_EXAMPLE_LINES: usize = 25;
const MAX_EXAMPLE_LINES: usize = 50;
const MAX_SUPPORT_LINES: usize = 60;

/// Crates of the chapter's examples, beside std.
const CHAPTER_CRATES: [&str; 5] = ["async-fs", "async-net", "futures-lite", "smol", "surf"];

/// Crates that one example may name in addition.
const LOGGING_CRATES: [&str; 2] = ["tracing", "tracing-subscriber"];

/// The only use of the library in the chapter's examples.
const TRANSPORT_IMPORT: &str = "use myapp::download::http::{ClientConfig, Transport};";

/// Returns the names of all examples.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let chapter = CHAPTER.iter().map(|(name, _)| *name);
    chapter.chain(LIBRARY.iter().map(|(name, _)| *name))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Returns the names and texts of the Rust files in a folder.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|found| found == "rs"));
    sources
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// Returns the files of the chapter's examples.
fn chapter_sources() -> impl Iterator<Item = (String, String)> {
    let is_chapter = |(name, _): &(String, String)| name.starts_with("6-");
    sources(&folder()).into_iter().filter(is_chapter)
}

/// Runs an example and returns its standard output.
#[track_caller]
fn run(name: &str) -> String {
    // `cargo test` builds the examples beside the program.
    let built = Path::new(env!("CARGO_BIN_EXE_myapp")).with_file_name("examples");
    let output = Command::new(built.join(name))
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error} (`cargo test` builds it)"));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(status.success(), "{name}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// Replaces the number after `start` or before `end` by `#`, unless it is 0.
fn mask(line: &str, start: &str, end: &str) -> String {
    let Some((before, rest)) = line.split_once(start) else {
        return line.to_owned();
    };
    let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, after) = rest.split_at(len.unwrap_or(rest.len()));
    if number.is_empty() || number == "0" || !after.starts_with(end) {
        return line.to_owned();
    }
    format!("{before}{start}#{after}")
}

/// Returns the lines of an output without ports, measured values and the transport's log.
fn lines(output: &str) -> Vec<String> {
    let is_foreign = |line: &str| line.contains("DEBUG") && !line.contains("6_6_5_logging");
    let lines = output.lines().map(str::trim);
    let kept = lines.filter(|line| !line.is_empty() && !is_foreign(line));
    kept.map(|line| {
        let line = mask(line, "127.0.0.1:", "");
        mask(&mask(&line, ": ", " segundos"), ": ", " tics")
    })
    .collect()
}

/// Returns whether `lines` contains `expected` in this order.
fn contains_in_order(lines: &[String], expected: &[&str]) -> bool {
    let mut lines = lines.iter();
    expected
        .iter()
        .all(|expected| lines.any(|line| line == expected))
}

/// Returns whether an output consists of the expected lines.
fn is_as_expected(lines: &[String], expected: &Output) -> bool {
    let sequences = match expected {
        Ordered(all) => &[*all][..],
        Interleaved(sequences) => sequences,
    };
    let mut all: Vec<&str> = sequences.concat();
    let mut sorted = lines.to_vec();
    all.sort_unstable();
    sorted.sort_unstable();
    all == sorted
        && sequences
            .iter()
            .all(|sequence| contains_in_order(lines, sequence))
}

#[test]
fn each_example_has_a_row() {
    let found: BTreeSet<_> = sources(&folder())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, names().map(str::to_owned).collect());
}

#[test]
fn each_section_with_code_has_an_example() {
    for section in SECTIONS_WITH_CODE {
        let prefix = section.replace('.', "-") + "-";
        let has_example = names().any(|name| name.starts_with(&prefix));
        assert!(has_example, "{section} has no example");
    }
}

#[test]
fn guide_and_readme_link_each_chapter_example() {
    let guide = include_str!("../../docs/guia.es.md");
    let readme = include_str!("../../README.md");
    for (name, _) in &CHAPTER {
        let section = name.splitn(4, '-').take(3).collect::<Vec<_>>().join(".");
        let command = format!("\ncargo run --example {name}\n");
        assert!(guide.contains(&format!("\n### {section} ")), "{section}");
        assert!(
            guide.contains(&format!("(../examples/{name}.rs)")),
            "{name}"
        );
        assert!(guide.contains(&command), "{command}");
        let row = format!("| {section} | [{name}](examples/{name}.rs) | ");
        assert!(readme.contains(&row), "{row}");
    }
}

#[test]
fn chapter_examples_print_the_texts_of_the_chapter() {
    let mut failed = Vec::new();
    for (name, expected) in &CHAPTER {
        let output = run(name);
        if !is_as_expected(&lines(&output), expected) {
            failed.push(format!("{name}:\n{output}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn library_examples_run_to_their_end() {
    for (name, expected) in LIBRARY {
        let output = run(name);
        assert!(
            output.contains(expected),
            "{name}, expected {expected:?}:\n{output}"
        );
    }
}

/// Returns the total time in the output of a reading example.
fn total_seconds(name: &str) -> f64 {
    let output = run(name);
    let (_, time) = output.split_once("Tiempo total de lectura: ").unwrap();
    time.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn concurrent_reads_take_half_the_time() {
    // The files take 0.5 s and 0.55 s.
    let blocking = total_seconds("6-2-1-blocking-reads");
    let concurrent = total_seconds("6-2-2-concurrent-reads");
    assert!(blocking >= 1.05, "{blocking}");
    assert!((0.55..1.05).contains(&concurrent), "{concurrent}");
}

#[test]
fn chapter_examples_are_short() {
    for (name, text) in chapter_sources() {
        let lines = text.lines().count();
        let is_short = (MIN_EXAMPLE_LINES..=MAX_EXAMPLE_LINES).contains(&lines);
        assert!(is_short, "{name}: {lines} lines");
    }
    for (name, text) in sources(&folder().join("support")) {
        let lines = text.lines().count();
        assert!(lines <= MAX_SUPPORT_LINES, "support/{name}: {lines} lines");
    }
}

#[test]
fn each_example_states_its_command() {
    for (name, text) in sources(&folder()) {
        let header: String = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let is_stated = header.contains(&format!("--example {name}`"));
        assert!(is_stated, "{name}: {header}");
    }
}

/// Returns the names of the packages that the manifest lists.
fn dependencies() -> Vec<String> {
    let manifest = include_str!("../../Cargo.toml");
    let (_, tables) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (tables, _) = tables.split_once("\n[profile").unwrap();
    let rows = tables.lines().filter_map(|line| line.split_once(" = "));
    let names = rows
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with('#'));
    names.map(str::to_owned).collect()
}

/// Returns whether a text names a crate: `name::` that is not the end of a longer path.
fn names_crate(text: &str, name: &str) -> bool {
    let path = name.replace('-', "_") + "::";
    text.match_indices(&path)
        .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[test]
fn chapter_examples_name_only_the_permitted_crates() {
    let dependencies = dependencies();
    assert!(dependencies.len() > 30, "only {} found", dependencies.len());
    // The support files of the chapter's examples follow the same rule.
    let support = sources(&folder().join("support"));
    for (name, text) in chapter_sources().chain(support) {
        let is_permitted = |krate: &str| {
            CHAPTER_CRATES.contains(&krate)
                || (name == "6-6-5-logging" && LOGGING_CRATES.contains(&krate))
        };
        for krate in &dependencies {
            let is_violation = names_crate(&text, krate) && !is_permitted(krate);
            assert!(!is_violation, "{name} names {krate}");
        }
        // The one support file that configures the transport is exempt.
        for line in text.lines().filter(|line| names_crate(line, "myapp")) {
            assert!(
                line == TRANSPORT_IMPORT || name == "client",
                "{name}: {line}"
            );
        }
    }
}

#[test]
fn outputs_are_compared_by_line_and_order() {
    let split = |text: &str| lines(text);
    let expected = Interleaved(&[&["a", "b"], &["c"]]);
    assert!(is_as_expected(&split("a\nc\nb"), &expected));
    assert!(!is_as_expected(&split("b\na\nc"), &expected));
    assert!(!is_as_expected(&split("a\nb\nc\nd"), &expected));
    assert!(!is_as_expected(&split("b\na"), &Ordered(&["a", "b"])));
    assert!(is_as_expected(&split("a\nb"), &Ordered(&["a", "b"])));
    assert_eq!(
        split("A 127.0.0.1:80/x: 3 tics\nB: 1.5 segundos\nC: 0 tics\n DEBUG other"),
        ["A 127.0.0.1:#/x: # tics", "B: # segundos", "C: 0 tics"]
    );
}
