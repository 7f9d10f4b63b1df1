use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

/// Returns the times after `from`, by the clock of the zone.
fn times(pattern: &str, zone: &str, from: &str, count: usize) -> String {
    let cron = Cron::try_new(pattern, zone).unwrap();
    let from = from.parse().unwrap();
    let times = cron.iter_after(from).take(count);
    let times = times.map(|at| {
        let at = at.to_zoned(cron.zone.clone());
        at.strftime("%a %m-%d %H:%M %:z").to_string()
    });
    times.collect::<Vec<_>>().join("\n")
}

#[test]
fn time_that_is_left_out_comes_when_the_clock_goes_forward() {
    // 2026-03-29, 02:00 is 03:00 in Berlin.
    let of = |pattern| times(pattern, "Europe/Berlin", "2026-03-28T12:00:00Z", 3);
    insta::assert_snapshot!(of("30 2 * * *"), @r"
    Sun 03-29 03:00 +02:00
    Mon 03-30 02:30 +02:00
    Tue 03-31 02:30 +02:00
    ");
    // Once, however many of its times are left out; and one that comes just then is the same.
    insta::assert_snapshot!(of("0,20,40 2,3 * * *"), @r"
    Sun 03-29 03:00 +02:00
    Sun 03-29 03:20 +02:00
    Sun 03-29 03:40 +02:00
    ");
    insta::assert_snapshot!(of("30 2,14 * * *"), @r"
    Sat 03-28 14:30 +01:00
    Sun 03-29 03:00 +02:00
    Sun 03-29 14:30 +02:00
    ");
    // By the clock alone.
    insta::assert_snapshot!(
        times("*/30 2-3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3), @r"
    Sun 03-29 03:00 +02:00
    Sun 03-29 03:30 +02:00
    Mon 03-30 02:00 +02:00
    ");
    insta::assert_snapshot!(times("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3), @r"
    Sun 03-29 01:30 +01:00
    Sun 03-29 03:30 +02:00
    Sun 03-29 04:30 +02:00
    ");
}

#[test]
fn time_that_is_repeated_comes_once() {
    // 2026-10-25, 03:00 is 02:00 again in Berlin.
    let of = |pattern| times(pattern, "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
    insta::assert_snapshot!(of("30 2 * * *"), @r"
    Sun 10-25 02:30 +02:00
    Mon 10-26 02:30 +01:00
    Tue 10-27 02:30 +01:00
    ");
    insta::assert_snapshot!(of("10,50 2,3 * * SUN"), @r"
    Sun 10-25 02:10 +02:00
    Sun 10-25 02:50 +02:00
    Sun 10-25 03:10 +01:00
    ");
    // Asked for while the clock shows it the second time, it is over.
    insta::assert_snapshot!(times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), @"Mon 10-26 02:30 +01:00");
    // By the clock alone.
    insta::assert_snapshot!(times("30 * * * *", "Europe/Berlin", "2026-10-24T23:40:00Z", 4), @r"
    Sun 10-25 02:30 +02:00
    Sun 10-25 02:30 +01:00
    Sun 10-25 03:30 +01:00
    Sun 10-25 04:30 +01:00
    ");
}

#[test]
fn pattern_may_name_days_and_stand_for_a_whole() {
    let of = |pattern| times(pattern, "UTC", "2026-01-30T12:00:00Z", 3);
    let patterns = [
        "0 9 * * mon-fri",
        "0 9 * JAN,jul *",
        "0 0 L * *",
        "0 0 1 * +MON",
        "0 0 13 * FRI",
        "0 0 * * 5#L",
        "0 0 15W * ?",
        "0 0 * * 7",
        "@hourly",
        "@weekly",
        " 5  4 * * * ",
    ];
    let told =
        patterns.map(|pattern| format!("{pattern}: {}", of(pattern).replace(" +00:00\n", ", ")));
    insta::assert_snapshot!(told.join("\n").replace(" +00:00", ""), @r"
    0 9 * * mon-fri: Mon 02-02 09:00, Tue 02-03 09:00, Wed 02-04 09:00
    0 9 * JAN,jul *: Sat 01-31 09:00, Wed 07-01 09:00, Thu 07-02 09:00
    0 0 L * *: Sat 01-31 00:00, Sat 02-28 00:00, Tue 03-31 00:00
    0 0 1 * +MON: Mon 06-01 00:00, Mon 02-01 00:00, Mon 03-01 00:00
    0 0 13 * FRI: Fri 02-06 00:00, Fri 02-13 00:00, Fri 02-20 00:00
    0 0 * * 5#L: Fri 02-27 00:00, Fri 03-27 00:00, Fri 04-24 00:00
    0 0 15W * ?: Mon 02-16 00:00, Mon 03-16 00:00, Wed 04-15 00:00
    0 0 * * 7: Sun 02-01 00:00, Sun 02-08 00:00, Sun 02-15 00:00
    @hourly: Fri 01-30 13:00, Fri 01-30 14:00, Fri 01-30 15:00
    @weekly: Sun 02-01 00:00, Sun 02-08 00:00, Sun 02-15 00:00
     5  4 * * * : Sat 01-31 04:05, Sun 02-01 04:05, Mon 02-02 04:05
    ");
}

#[test]
fn what_is_no_pattern_has_a_reason() {
    let patterns = [
        "",
        "* * * *",
        "* * * * * *",
        "0 0 30 2 *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "0 0 * * TUESDAY",
        "@reboot",
        "0/5 * * * *",
        "0 0 31 4,6 *",
    ];
    let told = patterns.map(|pattern| Cron::try_new(pattern, "UTC").unwrap_err().to_string());
    insta::assert_snapshot!(told.join("\n"), @r#"
    "" is not a cron pattern: it is empty
    "* * * *" is not a cron pattern: it does not have five fields
    "* * * * * *" is not a cron pattern: it does not have five fields
    the time of "0 0 30 2 *" never comes
    "60 * * * *" is not a cron pattern: number out of bounds, in the minute
    "0 24 * * *" is not a cron pattern: number out of bounds, in the hour
    "0 0 0 * *" is not a cron pattern: number out of bounds, in the day of the month
    "0 0 * 13 *" is not a cron pattern: number out of bounds, in the month
    "0 0 * * 8" is not a cron pattern: number out of bounds, in the day of the week
    "5-1 * * * *" is not a cron pattern: range out of bounds, in the minute
    "*/0 * * * *" is not a cron pattern: step cannot be zero, in the minute
    "a * * * *" is not a cron pattern: a character that means nothing there, in the minute
    "0 0 * * TUESDAY" is not a cron pattern: a character that means nothing there, in the day of the week
    "@reboot" is not a cron pattern: there is no such nickname
    "0/5 * * * *" is not a cron pattern: invalid step syntax: single number steps like "0/5" are not allowed, in the minute
    the time of "0 0 31 4,6 *" never comes
    "#);
    for zone in ["", "Mars/Olympus", "Europe", "+01:00", "/etc/passwd"] {
        let error = Cron::try_new("0 0 * * *", zone).unwrap_err();
        assert_eq!(
            error,
            CronError::UnknownZone {
                zone: zone.to_owned()
            }
        );
    }
    let berlin = Cron::try_new("0 0 * * *", "europe/berlin").unwrap();
    assert_eq!(berlin.to_string(), "0 0 * * * (Europe/Berlin)");
}

#[test]
fn zones_are_known_without_those_of_the_system() {
    let at = "2026-07-01T12:00:00Z".parse::<Timestamp>().unwrap();
    let zone = TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
    assert_eq!(zone.to_datetime(at).hour(), 14);
}

#[test]
fn longest_pause_is_known() {
    let pause = |pattern| {
        let cron = Cron::try_new(pattern, "Europe/Berlin").unwrap();
        let at = "2026-02-01T00:00:00Z".parse().unwrap();
        cron.longest_pause(at).as_secs() / 60
    };
    assert_eq!(pause("*/5 * * * *"), 5);
    assert_eq!(pause("30 2 * * *"), 25 * 60);
    assert_eq!(pause("0 9-17 * * MON-FRI"), (2 * 24 + 16) * 60);
    assert_eq!(pause("@yearly"), 365 * 24 * 60);
    // More than 400 times come before the longest pause.
    assert_eq!(pause("* 8-18 * * *"), 13 * 60 + 1);
    assert_eq!(pause("*/5 9-17 * * MON-FRI"), (2 * 24 + 15) * 60 + 5);
    assert_eq!(pause("* * 1 * *"), 27 * 24 * 60 + 1);
}

/// Days on which clocks change, and one on which they do not.
const DAYS: [(&str, &str); 8] = [
    ("Europe/Berlin", "2026-03-28T20:00:00Z"),
    ("Europe/Berlin", "2026-10-24T20:00:00Z"),
    ("America/New_York", "2026-03-08T01:00:00Z"),
    ("America/New_York", "2026-11-01T01:00:00Z"),
    // By half an hour.
    ("Australia/Lord_Howe", "2026-04-04T08:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T08:00:00Z"),
    // A day is left out.
    ("Pacific/Apia", "2011-12-29T22:00:00Z"),
    ("UTC", "2026-07-01T00:00:00Z"),
];

/// Finds the times of a pattern by looking at each minute of the clock.
fn minute_by_minute(cron: &Cron, from: Timestamp, minutes: i64) -> Vec<Timestamp> {
    let matches = |civil: &DateTime| cron.cron.is_time_matching(civil).unwrap();
    let mut times = Vec::new();
    // The latest time that the clock has shown: from before, since it may be shown again.
    let before = 4 * 60;
    let mut shown = cron
        .zone
        .to_datetime(from - SignedDuration::from_mins(before));
    for minute in 1 - before..=minutes {
        let at = from + SignedDuration::from_mins(minute);
        let civil = cron.zone.to_datetime(at);
        let due = if cron.has_wildcard {
            matches(&civil)
        } else {
            let mut due = false;
            while shown < civil {
                shown = shown.checked_add(SignedDuration::from_mins(1)).unwrap();
                due |= matches(&shown);
            }
            due
        };
        if due && minute > 0 {
            times.push(at);
        }
    }
    times
}

proptest! {
    /// Whatever the clock does, the times are those that somebody would find who looks at it every
    /// minute; each comes after the one before, wherever one begins to ask.
    #[test]
    fn times_are_those_of_the_clock(
        (zone, from) in prop::sample::select(DAYS.to_vec()),
        minute in prop_oneof![
            Just("*".to_owned()), Just("*/20".to_owned()), Just("0".to_owned()),
            Just("5,35".to_owned()), (0..60u8).prop_map(|minute| minute.to_string()),
        ],
        hour in prop_oneof![
            Just("*".to_owned()), Just("*/2".to_owned()), Just("1-3".to_owned()),
            Just("2".to_owned()), Just("0,2,3".to_owned()),
        ],
        day in prop::sample::select(vec!["*", "*", "*", "SUN", "L"]),
        later in 0i64..600,
    ) {
        let days = if day == "L" { "L * *".to_owned() } else { format!("* * {day}") };
        let cron = Cron::try_new(&format!("{minute} {hour} {days}"), zone).unwrap();
        let from = from.parse::<Timestamp>().unwrap() + SignedDuration::from_mins(later);
        let minutes = 40 * 60;
        let expected = minute_by_minute(&cron, from, minutes);
        let end = from + SignedDuration::from_mins(minutes);
        let found: Vec<_> = cron.iter_after(from).take_while(|at| *at <= end).collect();
        prop_assert_eq!(found, expected, "{} after {}", cron, from);
    }
}
