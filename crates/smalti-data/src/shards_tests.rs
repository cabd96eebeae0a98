use super::*;
use std::io::Write as _;

const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 1000 };

fn png(colour: u8) -> Vec<u8> {
    Image::filled(2, 2, [colour; 3]).unwrap().to_png()
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Opens an archive of these bytes; the folder lives as long as the result is used.
fn open(bytes: &[u8]) -> (tempfile::TempDir, Result<(Shards, LoadReport), DataError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.tar");
    fs::write(&path, bytes).unwrap();
    let opened = Shards::open(&path, &[], LIMITS);
    (folder, opened)
}

fn summary(shards: &Shards) -> Vec<(String, Option<u32>, u8)> {
    (0..shards.len())
        .map(|i| {
            (
                shards.name(i).into_owned(),
                shards.label(i),
                shards.image(i).unwrap().pixels()[0],
            )
        })
        .collect()
}

#[test]
fn numbered_labels_plain_and_compressed() {
    let bytes = tar_of(&[
        ("b/0.png", &png(5)),
        ("b/0.cls", b"2\n"),
        ("1.cls", b"0"),
        ("1.png", &png(6)),
        ("1.json", b"{}"),
    ]);
    let expected = vec![
        ("shard.tar:b/0.png".to_owned(), Some(2), 5),
        ("shard.tar:1.png".to_owned(), Some(0), 6),
    ];
    for bytes in [bytes.clone(), gzip(&bytes)] {
        let (_folder, opened) = open(&bytes);
        let (shards, report) = opened.unwrap();
        assert_eq!(summary(&shards), expected);
        assert_eq!(shards.classes(), ["0", "1", "2"]);
        assert_eq!(
            (report.found, report.ignored, report.broken.len()),
            (2, 1, 0)
        );
        assert_eq!(shards.size(0).unwrap(), (2, 2));
    }
}

#[test]
fn texts_name_classes() {
    let (_folder, opened) = open(&tar_of(&[
        ("0.png", &png(1)),
        ("0.txt", b"tench\n"),
        ("1.png", &png(2)),
        ("1.txt", b"goldfish"),
    ]));
    let (shards, _) = opened.unwrap();
    assert_eq!(shards.classes(), ["goldfish", "tench"]);
    assert_eq!((shards.label(0), shards.label(1)), (Some(1), Some(0)));
    let (_folder, opened) = open(&tar_of(&[
        ("0.png", &png(1)),
        ("0.txt", b"tench\n"),
        ("0.cls", b"1"),
    ]));
    assert_eq!(opened.unwrap().0.classes(), ["0", "tench"]);
}

#[test]
fn pictures_without_any_labels_have_none() {
    let (_folder, opened) = open(&tar_of(&[("0.png", &png(1))]));
    let (shards, report) = opened.unwrap();
    assert_eq!(
        (shards.label(0), shards.classes().len(), report.broken.len()),
        (None, 0, 0)
    );
}

#[test]
fn bad_labels_are_broken_samples() {
    let (_folder, opened) = open(&tar_of(&[
        ("0.png", &png(1)),
        ("0.cls", b"cat"),
        ("1.png", &png(2)),
        ("2.png", &png(3)),
        ("2.cls", b"1"),
        ("3.png", &png(4)),
        ("3.jpg", &png(4)),
        ("3.cls", b"1"),
        ("4.png", &png(5)),
        ("4.cls", b"4000000000"),
        ("5.png", &png(5)),
        ("5.cls", b"\xFF\xFE"),
    ]));
    let (shards, report) = opened.unwrap();
    assert_eq!(
        summary(&shards),
        [("shard.tar:2.png".to_owned(), Some(1), 3)]
    );
    let reasons: Vec<&str> = report
        .broken
        .iter()
        .map(|file| file.reason.as_str())
        .collect();
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    for (reason, expected) in reasons.iter().zip([
        "\"cat\"",
        "no .cls",
        "2 pictures",
        "class is 4000000000",
        "not a text",
    ]) {
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(report.found, 6);
    assert!(report.refuse_broken().is_err());
}

#[test]
fn a_cut_archive_keeps_what_is_whole() {
    let noise: Vec<u8> = (0..3 * 40 * 40u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let large = Image::new(40, 40, noise).unwrap().to_png();
    let whole = tar_of(&[
        ("0.png", &png(1)),
        ("0.cls", b"0"),
        ("1.png", &large),
        ("1.cls", b"0"),
    ]);
    // The third member's data begins after two members and its own header, 512 bytes each with
    // padding.
    let cut = &whole[..512 * 5 + large.len() / 2];
    for bytes in [cut.to_vec(), gzip(cut)] {
        let (_folder, opened) = open(&bytes);
        let (shards, report) = opened.unwrap();
        assert_eq!(shards.len(), 1);
        assert_eq!(report.broken[0].name, "shard.tar:1.png");
        assert!(
            report.broken[0].reason.contains("cut off"),
            "{}",
            report.broken[0].reason
        );
    }
    // Inside of a header.
    let (_folder, opened) = open(&whole[..512 * 4 + 100]);
    let (shards, report) = opened.unwrap();
    assert_eq!((shards.len(), report.broken.len()), (1, 1));
    // A compressed archive whose compressed data is cut.
    let packed = gzip(&whole);
    let (_folder, opened) = open(&packed[..packed.len() - large.len() / 2]);
    assert_eq!(opened.unwrap().0.len(), 1);
}

#[test]
fn a_folder_of_shards_is_read_in_order_with_given_class_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("b.tar"),
        tar_of(&[("0.png", &png(2)), ("0.cls", b"1")]),
    )
    .unwrap();
    fs::write(
        folder.path().join("a.tar.gz"),
        gzip(&tar_of(&[("0.png", &png(1)), ("0.cls", b"0")])),
    )
    .unwrap();
    fs::write(folder.path().join("notes.md"), "x").unwrap();
    let names = ["cat".to_owned(), "dog".to_owned()];
    let (shards, _) = Shards::open(folder.path(), &names, LIMITS).unwrap();
    assert_eq!(
        summary(&shards),
        [
            ("a.tar.gz:0.png".to_owned(), Some(0), 1),
            ("b.tar:0.png".to_owned(), Some(1), 2)
        ]
    );
    assert_eq!(shards.classes(), names);
}

#[test]
fn what_is_no_archive_is_an_error() {
    for (bytes, expected) in [
        (
            b"hello, this is a text and not an archive".repeat(40),
            "not a tar archive",
        ),
        (Vec::new(), "no pictures"),
        (tar_of(&[("readme.md", b"x")]), "no pictures"),
    ] {
        let (_folder, opened) = open(&bytes);
        let error = opened.map(drop).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("shard.tar"),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        Shards::open(path, &[], LIMITS)
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    assert!(open(folder.path()).contains("no archives"));
    assert!(open(&folder.path().join("missing.tar")).contains("missing.tar"));
}
