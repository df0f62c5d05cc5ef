//! When a token is asked for: a pure state machine. Times are handed in as the time since the process's start, and so is
//! chance; nothing here waits, reads a clock or sends. The loop round it is `source`, its only caller.

use std::time::Duration;

/// From the end of one request to the start of the next, so that a server sees at most one a second.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// Servers count in whole seconds, so a token may end this much before its lifetime has passed since it was received.
const RESOLUTION: Duration = Duration::from_secs(1);

/// First wait after a failure that time may heal; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest wait after a failure that time may heal.
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);

/// Between two requests with credentials that were refused: only a person can help, but servers err too.
const REFUSED_AGAIN: Duration = Duration::from_secs(5 * 60);

/// The state.
pub(super) struct Policy {
    margin: Duration,
    life: Option<Life>,
    in_flight: bool,
    last_ended: Option<Duration>,
    trouble: Trouble,
}

/// Of the token in hand.
#[derive(Debug, Clone, Copy)]
struct Life {
    renew_at: Duration,
    /// From here on it may have ended.
    doubtful_at: Duration,
    end: Duration,
}

/// What stands between us and the next request, apart from the spacing.
enum Trouble {
    None,
    Backoff {
        failures: u32,
        until: Duration,
        /// The server named the time itself, so new credentials do not shorten it.
        ordered: bool,
    },
    Refused {
        until: Duration,
    },
    Missing,
}

/// Answer to a caller that needs a token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// The token in hand is alive.
    Use,
    /// A request is under way: wait for its end.
    Join,
    /// Send a request; it is counted as under way from here on.
    Start,
    /// Ask again at this time, at most [`SPACING`] away.
    Later(Duration),
    /// There is none to be had now: the last error stands.
    Refuse,
}

/// Answer to the background loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Send a request; it is counted as under way from here on.
    Start,
    /// Nothing before this time, nor before anything else happens.
    At(Duration),
    /// Nothing before something else happens.
    Idle,
}

/// Why a request gave no token, by what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    /// Time may heal it; the server may have said how much.
    Transient {
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// These credentials are refused and no others are known.
    Refused,
    /// These credentials are refused, but there are others.
    OthersKnown,
    /// There is nothing to ask with; no request was sent.
    Missing,
}

impl Policy {
    /// No token yet; the first request may go at once.
    pub(super) fn new(margin: Duration) -> Self {
        Self {
            margin,
            life: None,
            in_flight: false,
            last_ended: None,
            trouble: Trouble::None,
        }
    }

    /// Tokens that come from here on are renewed so long before their end.
    pub(super) fn set_margin(&mut self, margin: Duration) {
        self.margin = margin;
    }

    /// Whether the token in hand is alive.
    pub(super) fn usable(&self, now: Duration) -> bool {
        self.life.is_some_and(|life| now < life.end)
    }

    /// Whether a request is under way.
    pub(super) fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether requests fail or cannot be made.
    pub(super) fn troubled(&self) -> bool {
        !matches!(self.trouble, Trouble::None)
    }

    /// A caller needs a token.
    pub(super) fn demand(&mut self, now: Duration) -> Demand {
        if self.life.is_some_and(|life| now < life.doubtful_at) {
            return Demand::Use;
        }
        match self.demand_new(now) {
            // Better a doubtful token than none.
            Demand::Later(_) | Demand::Refuse if self.usable(now) => Demand::Use,
            demand => demand,
        }
    }

    fn demand_new(&mut self, now: Duration) -> Demand {
        if self.in_flight {
            return Demand::Join;
        }
        if self.barred_until().is_none_or(|until| now < until) {
            return Demand::Refuse;
        }
        let spaced = self.spaced();
        if now < spaced {
            return Demand::Later(spaced);
        }
        self.in_flight = true;
        Demand::Start
    }

    /// The background loop looks for work.
    pub(super) fn renewal(&mut self, now: Duration) -> Renewal {
        if self.in_flight {
            return Renewal::Idle;
        }
        let Some(barred_until) = self.barred_until() else {
            return Renewal::Idle;
        };
        let wanted = self.life.map_or(Duration::ZERO, |life| life.renew_at);
        let at = wanted.max(barred_until).max(self.spaced());
        if now < at {
            return Renewal::At(at);
        }
        self.in_flight = true;
        Renewal::Start
    }

    /// The request under way brought a token that lives so long from `now`.
    pub(super) fn succeeded(&mut self, now: Duration, lifetime: Duration) {
        let [ahead, doubtful] = [self.margin, RESOLUTION].map(|time| time.min(lifetime / 2));
        self.life = Some(Life {
            renew_at: now + lifetime - ahead,
            doubtful_at: now + lifetime - doubtful,
            end: now + lifetime,
        });
        self.in_flight = false;
        self.last_ended = Some(now);
        self.trouble = Trouble::None;
    }

    /// The request under way brought none; `chance` is in 0..1.
    pub(super) fn failed(&mut self, now: Duration, setback: Setback, chance: f64) {
        self.in_flight = false;
        if setback != Setback::Missing {
            self.last_ended = Some(now);
        }
        self.trouble = match setback {
            Setback::Transient { retry_after } => {
                let failures = match self.trouble {
                    Trouble::Backoff { failures, .. } => failures.saturating_add(1),
                    _ => 1,
                };
                let backoff = backoff(failures).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
                Trouble::Backoff {
                    failures,
                    until: now + backoff.max(retry_after.unwrap_or_default()),
                    ordered: retry_after.is_some(),
                }
            }
            Setback::Refused => Trouble::Refused {
                until: now + REFUSED_AGAIN,
            },
            Setback::OthersKnown => Trouble::None,
            Setback::Missing => Trouble::Missing,
        };
    }

    /// The API does not take the token in hand.
    pub(super) fn rejected(&mut self) {
        self.life = None;
    }

    /// There are credentials that were not asked with yet.
    pub(super) fn credentials_changed(&mut self) {
        if !matches!(self.trouble, Trouble::Backoff { ordered: true, .. }) {
            self.trouble = Trouble::None;
        }
    }

    /// The request under way was given up without an answer.
    pub(super) fn abandoned(&mut self, now: Duration) {
        self.in_flight = false;
        self.last_ended = Some(now);
    }

    /// `None`: until the credentials change.
    fn barred_until(&self) -> Option<Duration> {
        match self.trouble {
            Trouble::None => Some(Duration::ZERO),
            Trouble::Backoff { until, .. } | Trouble::Refused { until } => Some(until),
            Trouble::Missing => None,
        }
    }

    fn spaced(&self) -> Duration {
        self.last_ended
            .map_or(Duration::ZERO, |ended| ended + SPACING)
    }
}

fn backoff(failures: u32) -> Duration {
    // Six doublings pass the longest wait; more would overflow.
    let doublings = failures.saturating_sub(1).min(6);
    (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARGIN: Duration = Duration::from_secs(60);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A policy whose first request brought a token of this life at time 0.
    fn with_token(lifetime: f64) -> Policy {
        let mut policy = Policy::new(MARGIN);
        assert_eq!(policy.renewal(Duration::ZERO), Renewal::Start);
        policy.succeeded(Duration::ZERO, seconds(lifetime));
        policy
    }

    fn transient() -> Setback {
        Setback::Transient { retry_after: None }
    }

    #[test]
    fn a_token_is_renewed_the_margin_before_its_end() {
        let mut policy = with_token(14_400.0);
        assert_eq!(policy.renewal(seconds(1.0)), Renewal::At(seconds(14_340.0)));
        // Another margin holds from the next token on.
        policy.set_margin(2 * MARGIN);
        assert_eq!(policy.renewal(seconds(1.0)), Renewal::At(seconds(14_340.0)));
        assert_eq!(policy.renewal(seconds(14_340.0)), Renewal::Start);
        policy.succeeded(seconds(14_340.0), seconds(14_400.0));
        let next = Renewal::At(seconds(14_340.0 + 14_400.0 - 120.0));
        assert_eq!(policy.renewal(seconds(14_341.0)), next);
    }

    #[test]
    fn a_token_in_its_last_second_is_given_out_only_where_no_newer_one_can_be_had() {
        for (lifetime, last) in [(14_400.0, 14_399.0), (3.0, 2.0), (2.0, 1.0)] {
            let mut policy = with_token(lifetime);
            assert_eq!(policy.demand(seconds(last - 0.01)), Demand::Use);
            assert_eq!(policy.demand(seconds(last)), Demand::Start);
            assert_eq!(policy.demand(seconds(last)), Demand::Join);
            policy.failed(seconds(last), Setback::Refused, 0.0);
            assert_eq!(policy.demand(seconds(lifetime - 0.01)), Demand::Use);
            assert_eq!(policy.demand(seconds(lifetime)), Demand::Refuse);
        }
        // Half a second is too soon after the last request.
        assert_eq!(with_token(1.0).demand(seconds(0.9)), Demand::Use);
    }

    #[test]
    fn a_token_shorter_than_twice_the_margin_is_renewed_at_half_its_life() {
        let mut policy = with_token(100.0);
        assert_eq!(policy.renewal(seconds(1.0)), Renewal::At(seconds(50.0)));
    }

    #[test]
    fn a_token_of_one_second_is_renewed_once_a_second() {
        let mut policy = with_token(1.0);
        assert_eq!(policy.renewal(seconds(0.9)), Renewal::At(seconds(1.0)));
        assert_eq!(policy.renewal(seconds(1.0)), Renewal::Start);
    }

    #[test]
    fn a_rejected_token_is_replaced_as_soon_as_the_spacing_allows() {
        let mut policy = with_token(14_400.0);
        policy.rejected();
        assert_eq!(policy.demand(seconds(0.25)), Demand::Later(seconds(1.0)));
        assert_eq!(policy.demand(seconds(1.0)), Demand::Start);
        assert_eq!(policy.demand(seconds(1.0)), Demand::Join);
        assert_eq!(policy.renewal(seconds(1.0)), Renewal::Idle);
    }

    #[test]
    fn failures_double_the_wait_up_to_a_minute_and_success_ends_it() {
        let mut policy = Policy::new(MARGIN);
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(policy.renewal(now), Renewal::Start);
            policy.failed(now, transient(), 1.0);
            let Renewal::At(next) = policy.renewal(now) else {
                unreachable!("a transient failure ends by itself");
            };
            assert_eq!(policy.demand(now), Demand::Refuse);
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy.renewal(now), Renewal::Start);
        policy.succeeded(now, seconds(3600.0));
        policy.rejected();
        now += SPACING;
        assert_eq!(policy.demand(now), Demand::Start);
        policy.failed(now, transient(), 1.0);
        assert_eq!(policy.renewal(now), Renewal::At(now + BACKOFF_FIRST));
    }

    #[test]
    fn chance_spreads_the_waits_over_their_upper_half() {
        for (chance, wait) in [(0.0, 30.0), (0.5, 45.0), (1.0, 60.0)] {
            let mut policy = Policy::new(MARGIN);
            for _ in 0..20 {
                policy.failed(Duration::ZERO, transient(), chance);
            }
            assert_eq!(policy.renewal(Duration::ZERO), Renewal::At(seconds(wait)));
        }
    }

    #[test]
    fn retry_after_stretches_the_wait_and_new_credentials_do_not_shorten_it() {
        let mut policy = Policy::new(MARGIN);
        policy.failed(
            Duration::ZERO,
            Setback::Transient {
                retry_after: Some(seconds(90.0)),
            },
            0.0,
        );
        policy.credentials_changed();
        assert_eq!(policy.renewal(seconds(2.0)), Renewal::At(seconds(90.0)));
        policy.failed(Duration::ZERO, transient(), 0.0);
        policy.credentials_changed();
        assert_eq!(policy.renewal(seconds(2.0)), Renewal::Start);
    }

    #[test]
    fn refused_credentials_are_asked_with_again_after_five_minutes() {
        let mut policy = Policy::new(MARGIN);
        assert_eq!(policy.renewal(Duration::ZERO), Renewal::Start);
        policy.failed(Duration::ZERO, Setback::Refused, 0.0);
        assert_eq!(policy.demand(seconds(299.0)), Demand::Refuse);
        assert_eq!(policy.renewal(seconds(299.0)), Renewal::At(REFUSED_AGAIN));
        assert_eq!(policy.renewal(REFUSED_AGAIN), Renewal::Start);
    }

    #[test]
    fn a_refused_grant_is_asked_with_once_in_five_minutes_however_many_want_a_token() {
        // With a token in hand at first, as after a revocation, and without one, as after a start.
        for mut policy in [with_token(14.0), Policy::new(MARGIN)] {
            let mut asked: Vec<Duration> = Vec::new();
            for tick in 0..36_000_u32 {
                let now = Duration::from_millis(100) * tick;
                let wanted = policy.demand(now) == Demand::Start;
                if wanted || policy.renewal(now) == Renewal::Start {
                    asked.push(now);
                    policy.failed(now, Setback::Refused, 0.5);
                }
                // The API refuses whatever is still in hand.
                if tick % 7 == 0 {
                    policy.rejected();
                }
            }
            assert_eq!(asked.len(), 12, "an hour of five minutes each: {asked:?}");
            for pair in asked.windows(2) {
                assert!(pair[1] - pair[0] >= seconds(300.0), "{asked:?}");
            }
        }
    }

    #[test]
    fn other_credentials_are_asked_with_after_the_spacing() {
        let mut policy = Policy::new(MARGIN);
        policy.failed(Duration::ZERO, Setback::OthersKnown, 0.0);
        assert_eq!(policy.demand(seconds(0.5)), Demand::Later(SPACING));
        policy.failed(SPACING, Setback::Refused, 0.0);
        policy.credentials_changed();
        assert_eq!(policy.demand(seconds(2.0)), Demand::Start);
    }

    #[test]
    fn with_nothing_to_ask_with_only_a_change_helps_and_needs_no_spacing() {
        let mut policy = Policy::new(MARGIN);
        assert_eq!(policy.renewal(Duration::ZERO), Renewal::Start);
        policy.failed(Duration::ZERO, Setback::Missing, 0.0);
        assert_eq!(policy.renewal(seconds(1e6)), Renewal::Idle);
        assert_eq!(policy.demand(seconds(1e6)), Demand::Refuse);
        policy.credentials_changed();
        assert_eq!(policy.renewal(Duration::ZERO), Renewal::Start);
    }

    #[test]
    fn a_request_given_up_does_not_block_the_next() {
        let mut policy = Policy::new(MARGIN);
        assert_eq!(policy.demand(Duration::ZERO), Demand::Start);
        policy.abandoned(seconds(5.0));
        assert_eq!(policy.demand(seconds(6.0)), Demand::Start);
    }

    /// What may happen to a policy whose loop and callers look at it all the time.
    #[derive(Debug, Clone)]
    enum Event {
        Pass(f64),
        Need,
        Answer(Result<f64, Setback>, f64),
        Reject,
        Change,
    }

    fn event() -> impl Strategy<Value = Event> {
        let setback = prop_oneof![
            3 => Just(transient()),
            1 => (0.0..4000.0).prop_map(|wait| Setback::Transient {
                retry_after: Some(seconds(wait)),
            }),
            2 => Just(Setback::Refused),
            1 => Just(Setback::OthersKnown),
        ];
        prop_oneof![
            4 => (0.0..2.0).prop_map(Event::Pass),
            1 => (0.0..1000.0).prop_map(Event::Pass),
            4 => Just(Event::Need),
            4 => (prop_oneof![
                (0.01..5.0).prop_map(Ok),
                (0.01..20_000.0).prop_map(Ok),
                setback.prop_map(Err)
            ], 0.0..1.0).prop_map(|(answer, chance)| Event::Answer(answer, chance)),
            1 => Just(Event::Reject),
            1 => Just(Event::Change),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn whatever_happens_requests_are_single_spaced_and_never_given_up(
            events in prop::collection::vec(event(), 1..120),
        ) {
            let mut policy = Policy::new(MARGIN);
            let mut now = Duration::ZERO;
            let mut in_flight = false;
            let mut last_ended: Option<Duration> = None;
            // Unchanged credentials that were refused at this time.
            let mut refused_at: Option<Duration> = None;
            let mut alive_until: Option<Duration> = None;
            let mut certain_until: Option<Duration> = None;
            for event in events {
                let mut started = false;
                match event {
                    Event::Pass(time) => {
                        now += seconds(time);
                        started = policy.renewal(now) == Renewal::Start;
                    }
                    Event::Need => {
                        let alive = alive_until.is_some_and(|end| now < end);
                        let demand = policy.demand(now);
                        let certain = certain_until.is_some_and(|end| now < end);
                        let newer = matches!(demand, Demand::Join | Demand::Start);
                        // A living token is given out whatever else is wrong, and a dead one never.
                        prop_assert_eq!(demand == Demand::Use, certain || (alive && !newer));
                        prop_assert_eq!(demand == Demand::Join, in_flight && !certain);
                        if let Demand::Later(at) = demand {
                            prop_assert!(now < at && at <= now + SPACING);
                        }
                        started = demand == Demand::Start;
                    }
                    Event::Answer(answer, chance) if in_flight => {
                        in_flight = false;
                        last_ended = Some(now);
                        match answer {
                            Ok(lifetime) => {
                                policy.succeeded(now, seconds(lifetime));
                                alive_until = Some(now + seconds(lifetime));
                                certain_until = Some(now + seconds((lifetime - 1.0).max(lifetime / 2.0)));
                                refused_at = None;
                            }
                            Err(setback) => {
                                policy.failed(now, setback, chance);
                                refused_at = (setback == Setback::Refused).then_some(now);
                            }
                        }
                    }
                    Event::Answer(..) => {}
                    Event::Reject => {
                        policy.rejected();
                        (alive_until, certain_until) = (None, None);
                    }
                    Event::Change => {
                        policy.credentials_changed();
                        refused_at = None;
                    }
                }
                if started {
                    prop_assert!(!in_flight, "two requests at once");
                    prop_assert!(last_ended.is_none_or(|ended| now >= ended + SPACING));
                    prop_assert!(refused_at.is_none_or(|at| now >= at + REFUSED_AGAIN));
                    in_flight = true;
                }
            }
            // However it stands, the background loop alone has a next request, and not after the token's end.
            if !in_flight {
                let next = match policy.renewal(now) {
                    Renewal::Start => now,
                    Renewal::At(at) => at,
                    Renewal::Idle => return Err(TestCaseError::fail("no next request")),
                };
                let spaced = last_ended.map_or(Duration::ZERO, |ended| ended + SPACING);
                let latest = if policy.troubled() {
                    now + seconds(4000.0)
                } else {
                    alive_until.unwrap_or(now).max(now).max(spaced)
                };
                prop_assert!(next <= latest);
            }
        }
    }
}
