//! Compressed inputs.

use super::*;

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Output of `xz` for `hello xz` and a newline.
const XZ: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00\x21\x01\x1c\x00\x00\x00\x10\xcfX\xcc\x01\x00\x08hello\x20xz\x0a\x00\x00\x00\x00\xc1I:\xfacR\x14Z\x00\x01\x21\x09l\x18\xc5\xd5\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";

#[test]
fn compressed_inputs_are_decompressed() {
    let folder = Folder::new();
    let mut random = fastrand::Rng::new();
    let text: Vec<_> = (0..3_000_000)
        .map(|_| random.choice(*b"abc\n").unwrap())
        .collect();
    let (half, rest) = text.split_at(1_000_000);
    folder.write("a.gz", [gzip(half), gzip(b""), gzip(rest)].concat());
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0xyz";
    folder.write(
        "a.zst",
        [&skippable[..], &zstd(half), skippable, &zstd(rest)].concat(),
    );
    folder.write("a.xz", [XZ, &[0; 8], XZ].concat());
    folder.write("plain", "plain\n");
    folder.write("empty", "");
    let arguments = [
        "cat", "-z", "a.gz", "plain", "a.xz", "empty", "-", "a.zst", "-", "a.gz",
    ];
    let stdin = gzip(b"stdin\n");
    let ran = folder.myapp(arguments).stdin(&stdin).run().code(0).silent();
    let expected = [
        &text[..],
        b"plain\nhello xz\nhello xz\nstdin\n",
        &text,
        &text,
    ]
    .concat();
    assert!(
        ran.stdout == expected,
        "{} bytes of {}",
        ran.stdout.len(),
        expected.len()
    );

    let ran = folder
        .myapp(["cat", "-nz", "a.xz", "-o", "out"])
        .run()
        .code(0);
    ran.silent().prints("");
    assert_eq!(folder.read("out"), b"     1\thello xz\n     2\thello xz\n");
    folder
        .myapp(["cat", "a.xz"])
        .run()
        .code(0)
        .prints([XZ, &[0; 8], XZ].concat());
    let script = "$MYAPP cat -z < a.gz | cmp - <($MYAPP cat -z <(cat a.zst))";
    let output = shell(&folder, script);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        shell(&folder, "$MYAPP cat -z a.gz | head -c 1 | wc -c").stdout,
        b"1\n"
    );
}

#[test]
fn corrupt_data_is_reported_and_skipped() {
    let folder = Folder::new();
    let corrupt = |mut bytes: Vec<u8>| {
        let middle = bytes.len() - 7;
        bytes[middle] ^= 0x55;
        bytes
    };
    let text = b"some text\n".repeat(100);
    for (name, complete) in [
        ("gzip", gzip(&text)),
        ("zstd", zstd(&text)),
        ("xz", XZ.to_vec()),
    ] {
        folder.write("truncated", &complete[..complete.len() - 5]);
        folder.write("corrupt", corrupt(complete.clone()));
        folder.write("trailing", [&complete[..], b"garbage"].concat());
        folder.write("good", gzip(b"good\n"));
        for file in ["truncated", "corrupt", "trailing"] {
            let ran = folder.myapp(["cat", "-z", file, "good"]).run().code(1);
            assert!(ran.stdout.ends_with(b"good\n"), "{name} {file}");
            let ran = ran
                .says(&format!("myapp: read {file}: "))
                .says(&format!("{name} data"));
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        }
    }
}

#[test]
#[ignore = "peer: gzip, zstd and xz"]
fn output_of_gzip_zstd_and_xz_is_decompressed() {
    let folder = Folder::new();
    let script = "set -e -o pipefail; seq 200000 > a
        for c in 'gzip -1' 'gzip -9' 'zstd -1' 'zstd -19 --long=27' 'xz -0' 'xz -9e' 'xz -T2'; do
            $c -c a > a.z; { cat a.z; $c -c a; } > b.z
            $MYAPP cat -z a.z b.z | cmp - <(cat a a a) || { echo \"$c\"; exit 1; }
            $MYAPP cat -z <(cat a.z) <(sleep 0.1; cat b.z) | cmp - <(cat a a a)
        done";
    let output = shell(&folder, script);
    assert!(output.status.success(), "{output:?}");
}
