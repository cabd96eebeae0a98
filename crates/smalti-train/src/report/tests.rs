//! The page as a whole: nothing from outside, nothing unescaped, nothing lost.

use super::*;

/// Text that would break out of every context it might be pasted into.
const HOSTILE: &str = "</style></title><script src=\"http://x\">alert('1')</script><img src=x onerror=y> & \"quoted\"\n\0";

fn checkers(side: u32) -> Picture {
    let shade = |index: u32| {
        if (index % side + index / side).is_multiple_of(2) {
            [40, 90, 160]
        } else {
            [240, 200, 80]
        }
    };
    Picture::new(
        side,
        side,
        (0..side * side).flat_map(shade).collect::<Vec<u8>>(),
    )
    .expect("a valid picture")
}

/// A report that holds every kind of block, with `text` wherever text can stand.
fn everything(text: &str) -> Report {
    let mut report = Report::new(text);
    report.subtitle(text).fact(text, text).configuration(text);
    report.key_number(KeyNumber::new(text, Value::number(24.125, 2).unit(text)).note(text));
    let quantity = || Quantity::new(text).unit(text);

    let mut table = Table::new(
        text,
        [text.into(), Column::new(quantity()).better(Better::Higher)],
    );
    table
        .row([text.into(), Value::number(31.5, 2)])
        .row([text.into(), Value::count(123_456)]);
    report
        .section(text)
        .paragraph(text)
        .folded(text, text)
        .add(table);

    let mut lines = LineChart::new(text, quantity(), quantity())
        .log_y()
        .note(text);
    lines.series(
        Series::new(text, [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 2.0)]).smoothed(0.5),
    );
    lines.series(Series::new(text, [])).mark(1.0, text);
    let mut bars = BarChart::new(text, quantity());
    bars.bar(text, Value::number(1.5, 1).unit(text));
    let charts = report.section(text);
    charts
        .add(lines)
        .add(
            Histogram::of_values(text, quantity(), &[1.0, 2.0], 4)
                .mark(1.5, text)
                .note(text),
        )
        .add(Histogram::ranked(text, [3, 0], 2));
    charts.add(bars);

    let codes = Picture::of_codes(2, 2, &[0, 1, 2, 3]).expect("a valid map");
    let mut gallery = Gallery::new(text);
    gallery.exhibit(
        Exhibit::new(text)
            .picture(text, checkers(4))
            .picture(text, codes)
            .value(text, Value::number(24.1, 1).unit(text)),
    );
    let mut samples = SampleGrid::new(text);
    samples.row(text, [checkers(2), checkers(2)]);
    report.section(text).add(gallery).add(samples);
    report
}

/// Every tag of a page as `(name, attributes)`, by the rules of HTML: quoted attribute values may hold anything.
fn tags(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let name_length = rest
            .find(|c: char| c.is_whitespace() || c == '>')
            .expect("a tag ends");
        let name = rest[..name_length].to_owned();
        rest = &rest[name_length..];
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\n', '/']);
            if let Some(after) = rest.strip_prefix('>') {
                rest = after;
                break;
            }
            let key_length = rest.find(['=', '>', ' ']).expect("an attribute ends");
            let key = rest[..key_length].to_owned();
            rest = &rest[key_length..];
            let mut value = String::new();
            if let Some(quoted) = rest.strip_prefix("=\"") {
                let end = quoted.find('"').expect("a quoted value ends");
                value = quoted[..end].to_owned();
                rest = &quoted[end + 1..];
            }
            attributes.push((key, value));
        }
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("the style sheet ends")..];
        }
        found.push((name, attributes));
    }
    found
}

#[test]
fn nothing_is_loaded_from_outside() {
    let page = everything(HOSTILE).render();
    let mut sources = 0;
    for (name, attributes) in tags(&page) {
        assert!(
            !["script", "link", "iframe", "object", "base"].contains(&name.as_str()),
            "<{name}>"
        );
        for (key, value) in attributes {
            match key.as_str() {
                "src" => {
                    assert!(value.starts_with("data:image/png;base64,"), "src={value}");
                    sources += 1;
                }
                "href" => assert!(value.starts_with('#'), "href={value}"),
                _ => assert!(
                    !key.starts_with("on") && !key.contains(':'),
                    "{key}={value}"
                ),
            }
        }
    }
    assert_eq!(sources, 4);
    let style = include_str!("style.css");
    assert!(!style.contains("url(") && !style.contains("@import") && !style.contains('<'));
}

#[test]
fn hostile_text_makes_no_tags() {
    let names = |text: &str| {
        tags(&everything(text).render())
            .into_iter()
            .map(|tag| tag.0)
            .collect::<Vec<String>>()
    };
    assert_eq!(names(HOSTILE), names("harmless"));
}

#[test]
fn tags_are_balanced() {
    const VOID: [&str; 12] = [
        "!doctype", "meta", "img", "br", "rect", "line", "polyline", "circle", "polygon", "input",
        "hr", "path",
    ];
    let mut open: Vec<String> = Vec::new();
    for (name, _) in tags(&everything("text").render()) {
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop().as_deref(), Some(closed)),
            None if VOID.contains(&name.as_str()) => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, Vec::<String>::new());
}

#[test]
fn every_number_appears() {
    let page = everything("x").render();
    for number in ["24.12", "31.50", "123,456", "24.1", "1.5"] {
        assert!(page.contains(number), "{number} is missing");
    }
}

#[test]
fn headings_that_repeat_have_their_own_ids() {
    let mut report = Report::new("ids");
    for heading in ["Samples", "Samples 2", "Samples", "Samples"] {
        report.section(heading);
    }
    assert_eq!(
        report.section_ids(),
        ["samples", "samples-2", "samples-3", "samples-4"]
    );
    let page = report.render();
    assert!(page.contains("<a href=\"#samples-3\">Samples</a>"));
}

#[test]
fn an_empty_report_is_a_page() {
    let page = Report::new("Nothing yet").render();
    assert!(page.contains("<h1>Nothing yet</h1>") && page.ends_with("</html>\n"));
    assert!(
        !page.contains("<nav") && !page.contains("<details") && !page.contains("class=\"cards\"")
    );
}

#[test]
fn a_small_report() {
    let mut report = Report::new("Tokenizer of 2 × 2 checkers");
    report
        .subtitle("A report small enough to read.")
        .fact("seed", 17_usize)
        .configuration("codebook_size = 4\n");
    report.key_number(KeyNumber::new("PSNR", Value::number(24.125, 1).unit("dB")).note("1 image"));
    let mut table = Table::new(
        "Quality",
        [
            "depth".into(),
            Column::new(Quantity::new("PSNR").unit("dB")),
        ],
    );
    table.row([1_usize.into(), Value::number(24.125, 2)]);
    let mut loss = LineChart::new("Loss", "step", Quantity::new("loss").unit("nats"));
    loss.series(Series::new("train", [(0.0, 1.0), (10.0, 0.5)]));
    let mut bars = BarChart::new("Time", Quantity::new("time").unit("ms"));
    bars.bar("encode", Value::number(1.5, 1));
    report
        .section("Quality")
        .paragraph("All of it.")
        .add(table)
        .add(loss)
        .add(bars);
    let mut gallery = Gallery::new("Validation");
    gallery.exhibit(Exhibit::new("checkers").picture("original", checkers(2)));
    report.section("Pictures").add(gallery);
    // The style sheet is read where it is edited, and the bytes of a PNG are the compressor's affair.
    let page = report
        .render()
        .replace(include_str!("style.css"), "(style.css)\n");
    let (before, png) = page.split_once("base64,").expect("one picture");
    let (_, after) = png.split_once('"').expect("the picture ends");
    insta::assert_snapshot!(format!("{before}base64,(png)\"{after}"));
}
