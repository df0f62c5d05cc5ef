//! The schedule in virtual time.

use std::slice;

use proptest::prelude::*;

use super::*;
use crate::{config::Secret, oauth::store::Record, stats::Reason};

const MARGIN: Duration = Duration::from_secs(60);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn token() -> AccessToken {
    AccessToken::new("token").expect("it can be sent in a header")
}

fn unavailable(retry_after: Option<f64>) -> TokenError {
    TokenError::Unavailable {
        reason: Reason::ServerError,
        what: String::new(),
        retry_after: retry_after.map(seconds),
    }
}

fn refused() -> TokenError {
    TokenError::InvalidGrant(String::new())
}

fn missing() -> TokenError {
    TokenError::RefreshTokenMissing(String::new())
}

fn credentials(refresh_token: &str) -> Credentials {
    Credentials {
        client_id: Secret::new("id"),
        client_secret: None,
        record: Record {
            refresh_token: Secret::new(refresh_token),
            seed: None,
            obtained_at: None,
        },
    }
}

fn empty() -> RefreshSchedule {
    RefreshSchedule::new(MARGIN)
}

impl RefreshSchedule {
    fn succeed(&mut self, now: Duration, lifetime: f64) -> Success {
        let success = self.succeeded(now, token(), seconds(lifetime));
        self.ended();
        success
    }

    fn fail(&mut self, now: Duration, error: TokenError, random: f64) -> bool {
        let is_new = self.failed(now, error, random);
        self.ended();
        is_new
    }

    fn demand(&mut self, now: f64) -> &'static str {
        match self.on_demand(seconds(now)) {
            OnDemand::Use(_) => "use",
            OnDemand::Wait => "wait",
            OnDemand::Start => "start",
            OnDemand::Refuse(_) => "refuse",
        }
    }
}

/// A schedule whose first request returned a token with this lifetime at time 0.
fn with_token(lifetime: f64) -> RefreshSchedule {
    let mut schedule = empty();
    assert!(schedule.start_if_due(Duration::ZERO));
    assert_eq!(schedule.succeed(Duration::ZERO, lifetime), Success::First);
    schedule
}

#[test]
fn a_token_is_renewed_ahead_of_its_end_by_the_margin_or_half_its_lifetime() {
    for (lifetime, renewed) in [(14_400.0, 14_340.0), (100.0, 50.0), (2.0, 1.0)] {
        let mut schedule = with_token(lifetime);
        assert_eq!(schedule.next_refresh_at(), seconds(renewed));
        assert!(!schedule.start_if_due(seconds(renewed - 0.1)));
        assert!(schedule.start_if_due(seconds(renewed)));
        let success = schedule.succeed(seconds(renewed), lifetime);
        assert_eq!(success, Success::Renewed);
    }
}

#[test]
fn a_token_in_its_last_second_is_used_only_if_no_newer_one_can_be_had() {
    for (lifetime, stale) in [(14_400.0, 14_399.0), (3.0, 2.0), (1.0, 0.5)] {
        let mut schedule = with_token(lifetime);
        assert_eq!(schedule.demand(stale - 0.01), "use");
        assert_eq!(schedule.demand(stale), "start");
        assert_eq!(schedule.demand(stale), "wait");
        schedule.fail(seconds(stale), refused(), 0.0);
        assert_eq!(schedule.demand(lifetime - 0.01), "use");
        assert_eq!(schedule.demand(lifetime), "refuse");
    }
}

#[test]
fn a_rejected_token_is_renewed_at_once_and_used_until_there_is_a_newer_one() {
    let mut schedule = with_token(14_400.0);
    let OnDemand::Use(rejected) = schedule.on_demand(seconds(1.0)) else {
        unreachable!("it is valid");
    };
    schedule.rejected(&rejected);
    assert_eq!(schedule.demand(2.0), "start");
    assert_eq!(schedule.demand(2.0), "wait");
    assert!(
        !schedule.start_if_due(seconds(2.0)),
        "one request at a time"
    );
    schedule.fail(seconds(2.0), unavailable(None), 0.0);
    assert_eq!(schedule.demand(2.1), "use");
    let success = schedule.succeed(seconds(3.0), 14_400.0);
    let had_no_token = true;
    assert_eq!(success, Success::Recovered { had_no_token });
    schedule.rejected(&rejected);
    assert_eq!(schedule.demand(4.0), "use", "the newer one is not rejected");
}

#[test]
fn failures_double_the_backoff_up_to_a_minute_and_success_resets_it() {
    let mut schedule = empty();
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for attempt in 0..9 {
        assert!(schedule.start_if_due(now));
        let is_new = schedule.fail(now, unavailable(None), 1.0);
        assert_eq!(is_new, attempt == 0);
        assert_eq!(schedule.demand(now.as_secs_f64()), "refuse");
        let next = schedule.next_refresh_at();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    schedule.succeed(now, 1.0);
    now += seconds(1.0);
    schedule.fail(now, unavailable(None), 1.0);
    assert_eq!(schedule.next_refresh_at(), now + MIN_BACKOFF);
}

#[test]
fn the_backoff_is_spread_over_its_upper_half() {
    for (random, wait) in [(0.0, 30.0), (0.5, 45.0), (1.0, 60.0)] {
        let mut schedule = empty();
        for _ in 0..20 {
            schedule.fail(Duration::ZERO, unavailable(None), random);
        }
        assert_eq!(schedule.next_refresh_at(), seconds(wait));
    }
}

#[test]
fn retry_after_is_obeyed_even_if_credentials_change() {
    let mut schedule = empty();
    schedule.fail(Duration::ZERO, unavailable(Some(90.0)), 0.0);
    schedule.credentials_found(&[credentials("new")]);
    assert_eq!(schedule.next_refresh_at(), seconds(90.0));
}

#[test]
fn refused_credentials_are_tried_again_after_five_minutes() {
    // With a valid token at first, as after a revocation, and without one, as after a start.
    for mut schedule in [with_token(14.0), empty()] {
        let mut requests: Vec<Duration> = Vec::new();
        for tick in 0..36_000_u32 {
            let now = Duration::from_millis(100) * tick;
            let on_demand = schedule.on_demand(now);
            if matches!(on_demand, OnDemand::Start) || schedule.start_if_due(now) {
                requests.push(now);
                schedule.fail(now, refused(), 0.5);
            }
            // The API rejects the token as well.
            if let OnDemand::Use(token) = &on_demand {
                schedule.rejected(token);
            }
        }
        assert_eq!(requests.len(), 12, "{requests:?}");
        for pair in requests.windows(2) {
            assert!(pair[1] - pair[0] >= REFUSED_RETRY, "{requests:?}");
        }
    }
}

#[test]
fn credentials_that_were_not_refused_are_tried_at_once() {
    let [old, second, new] = ["old", "second", "new"].map(credentials);
    let found = [old.clone(), second.clone()];
    let mut schedule = empty();
    assert_eq!(schedule.first_untried(&found), Some(&old));
    schedule.refuse(slice::from_ref(&old));
    assert_eq!(schedule.first_untried(&found), Some(&second));
    schedule.refuse(slice::from_ref(&second));
    assert_eq!(schedule.first_untried(&found), None);
    schedule.fail(Duration::ZERO, refused(), 0.0);
    schedule.credentials_found(&found);
    assert_eq!(schedule.next_refresh_at(), REFUSED_RETRY);
    schedule.credentials_found(&[old.clone(), new]);
    assert!(schedule.start_if_due(seconds(1.0)));
    schedule.succeed(seconds(1.0), 3600.0);
    assert_eq!(schedule.first_untried(&found), Some(&old), "forgotten");
}

#[test]
fn without_credentials_nothing_is_requested_until_some_are_found() {
    let mut schedule = empty();
    assert!(schedule.start_if_due(Duration::ZERO));
    schedule.fail(Duration::ZERO, missing(), 0.0);
    assert!(!schedule.start_if_due(seconds(1e6)));
    assert_eq!(schedule.demand(1e6), "refuse");
    schedule.credentials_found(&[credentials("new")]);
    assert!(schedule.start_if_due(Duration::ZERO));
}

#[test]
fn a_request_that_ends_without_a_result_does_not_block_the_next() {
    let mut schedule = empty();
    assert_eq!(schedule.demand(0.0), "start");
    schedule.ended();
    assert_eq!(schedule.demand(6.0), "start");
}

#[test]
fn recovery_says_whether_there_was_no_token() {
    for (recovered_at, had_no_token) in [(5.0, false), (11.0, true)] {
        let mut schedule = with_token(10.0);
        schedule.fail(seconds(4.0), unavailable(None), 0.0);
        let success = schedule.succeed(seconds(recovered_at), 10.0);
        assert_eq!(success, Success::Recovered { had_no_token });
    }
}

#[test]
fn only_another_kind_of_failure_is_new() {
    let mut schedule = empty();
    assert!(schedule.fail(Duration::ZERO, unavailable(None), 0.0));
    assert!(!schedule.fail(Duration::ZERO, unavailable(Some(5.0)), 0.0));
    assert!(schedule.fail(Duration::ZERO, refused(), 0.0));
    assert!(schedule.fail(Duration::ZERO, missing(), 0.0));
    assert_eq!(schedule.last_error(), Some(&missing()));
}

/// What may happen between two looks at the schedule.
#[derive(Debug, Clone)]
enum Event {
    Pass(f64),
    Demand,
    Reply(Result<f64, TokenError>, f64),
    Reject,
    NewCredentials,
}

fn event() -> impl Strategy<Value = Event> {
    let error = prop_oneof![
        3 => Just(unavailable(None)),
        1 => (0.0..4000.0).prop_map(|wait| unavailable(Some(wait))),
        2 => Just(refused()),
    ];
    let reply = prop_oneof![
        (0.01..5.0).prop_map(Ok),
        (0.01..20_000.0).prop_map(Ok),
        error.prop_map(Err)
    ];
    prop_oneof![
        4 => (0.0..2.0).prop_map(Event::Pass),
        1 => (0.0..1000.0).prop_map(Event::Pass),
        4 => Just(Event::Demand),
        4 => (reply, 0.0..1.0).prop_map(|(reply, random)| Event::Reply(reply, random)),
        1 => Just(Event::Reject),
        1 => Just(Event::NewCredentials),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests_are_single_and_valid_tokens_are_used_whatever_happens(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut schedule = empty();
        let mut now = Duration::ZERO;
        let mut in_flight = false;
        // Since when these credentials are known to be refused.
        let mut refused_at: Option<Duration> = None;
        let mut current: Option<Arc<AccessToken>> = None;
        let mut expires_at = Duration::ZERO;
        let mut fresh_until = Duration::ZERO;
        for event in events {
            let mut started = false;
            match event {
                Event::Pass(time) => {
                    now += seconds(time);
                    started = schedule.start_if_due(now);
                }
                Event::Demand => {
                    let fresh = now < fresh_until;
                    match schedule.on_demand(now) {
                        OnDemand::Use(token) => {
                            prop_assert!(fresh || now < expires_at, "an expired token");
                            current = Some(token);
                        }
                        OnDemand::Wait => prop_assert!(in_flight && !fresh),
                        OnDemand::Start => {
                            prop_assert!(!fresh);
                            started = true;
                        }
                        OnDemand::Refuse(_) => prop_assert!(now >= expires_at, "a valid token"),
                    }
                }
                Event::Reply(reply, random) if in_flight => {
                    in_flight = false;
                    match reply {
                        Ok(lifetime) => {
                            schedule.succeed(now, lifetime);
                            expires_at = now + seconds(lifetime);
                            fresh_until = now + seconds((lifetime - 1.0).max(lifetime / 2.0));
                            refused_at = None;
                        }
                        Err(error) => {
                            refused_at = matches!(error, TokenError::InvalidGrant(_)).then_some(now);
                            schedule.fail(now, error, random);
                        }
                    }
                    current = None;
                }
                Event::Reply(..) => {}
                Event::Reject => {
                    if let Some(token) = &current {
                        schedule.rejected(token);
                        fresh_until = Duration::ZERO;
                    }
                }
                Event::NewCredentials => {
                    schedule.credentials_found(&[credentials("new")]);
                    refused_at = None;
                }
            }
            if started {
                prop_assert!(!in_flight, "two requests at once");
                prop_assert!(refused_at.is_none_or(|at| now >= at + REFUSED_RETRY));
                in_flight = true;
            }
        }
        // The background task alone always sends a next request, and not after the token's end.
        if !in_flight {
            let latest = match schedule.last_error() {
                Some(_) => now + seconds(4000.0),
                None => expires_at.max(now),
            };
            prop_assert!(schedule.next_refresh_at() <= latest);
        }
    }
}
