//! Tests of the recipients of an event: topics, clients, everyone, and combinations of these.

use downlink::hub::{Address, ClientId, Delivery, Hub, Subscription, Topic};
use futures_util::{FutureExt, StreamExt};

use super::{certain, hub, open, say, seen};

#[test]
fn only_subscriptions_to_a_topic_get_its_events() {
    let hub = hub();
    let mut news = open(hub.subscribe().topic("news"));
    let mut both = open(hub.subscribe().topics(["news", "sport"]));
    let mut none = open(hub.subscribe());
    assert_eq!(say(&hub, "news", "n").matched(), 2);
    assert_eq!(say(&hub, "sport", "s").matched(), 1);
    assert_eq!(say(&hub, "weather", "w").matched(), 0);
    assert_eq!(seen(&mut news), ["n"]);
    assert_eq!(seen(&mut both), ["n", "s"]);
    assert!(seen(&mut none).is_empty());
}

#[test]
fn a_pattern_matches_present_and_later_topics() {
    let hub = hub();
    say(&hub, "orders/1/status", "before");
    let mut all = open(hub.subscribe().pattern("orders/*"));
    let mut statuses = open(hub.subscribe().pattern("orders/{id}/status"));
    let mut one = open(hub.subscribe().pattern("orders/2/note"));
    assert_eq!(say(&hub, "orders/1/status", "paid").matched(), 2);
    assert_eq!(say(&hub, "orders/2/status", "open").matched(), 2);
    assert_eq!(say(&hub, "orders/2/note", "hm").matched(), 2);
    assert_eq!(say(&hub, "orders", "no").matched(), 0);
    assert_eq!(seen(&mut all), ["paid", "open", "hm"]);
    assert_eq!(seen(&mut statuses), ["paid", "open"]);
    assert_eq!(seen(&mut one), ["hm"]);
}

#[test]
fn a_topic_is_never_read_as_a_pattern() {
    assert!(super::try_open(hub().subscribe().topic("orders/*")).is_err());
}

#[test]
fn a_client_gets_its_events_on_all_its_connections() {
    let hub = hub();
    let mut phone = open(hub.subscribe().client("alice"));
    let mut laptop = open(hub.subscribe().client("alice").topic("news"));
    let mut bob = open(hub.subscribe().client("bob"));
    let receipt = hub.to_client("alice").publish("hi".to_owned()).unwrap();
    assert_eq!(receipt.matched(), Some(2));
    assert_eq!(hub.subscribers_of("alice"), 2);
    assert_eq!(seen(&mut phone), ["hi"]);
    assert_eq!(seen(&mut laptop), ["hi"]);
    assert!(seen(&mut bob).is_empty());
}

#[test]
fn a_client_and_a_topic_may_have_the_same_name() {
    let hub = hub();
    let mut client = open(hub.subscribe().client("x"));
    let mut topic = open(hub.subscribe().topic("x"));
    hub.to_client("x").publish("c".to_owned()).unwrap();
    say(&hub, "x", "t");
    assert_eq!(seen(&mut client), ["c"]);
    assert_eq!(seen(&mut topic), ["t"]);
}

#[test]
fn every_subscription_gets_events_to_everyone() {
    let hub = hub();
    let mut subscriptions = [
        open(hub.subscribe()),
        open(hub.subscribe().topic("a")),
        open(hub.subscribe().client("c")),
        open(hub.subscribe().pattern("a/*")),
    ];
    assert_eq!(hub.publish("hear".to_owned()).unwrap().matched(), Some(4));
    for subscription in &mut subscriptions {
        assert_eq!(seen(subscription), ["hear"]);
    }
}

#[test]
fn an_event_to_several_addresses_arrives_once_per_connection() {
    let hub = hub();
    let mut twice = open(hub.subscribe().topics(["a", "b"]).client("c"));
    let mut once = open(hub.subscribe().topic("b"));
    let publish = hub.to("a").and_to("b").and_to("a").and_to_client("c").and_to_everyone();
    let receipt = certain(publish.publish("x".to_owned())).unwrap();
    assert_eq!((receipt.matched(), receipt.offset().get()), (2, 1));
    assert_eq!(seen(&mut twice), ["x"]);
    assert_eq!(seen(&mut once), ["x"]);
    assert_eq!(say(&hub, "a", "next").offset().get(), 2);
}

#[test]
fn events_of_different_topics_keep_their_order() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topics(["a", "b"]));
    let topics = ["a", "b", "b", "a", "b", "a"];
    for (at, topic) in topics.iter().enumerate() {
        say(&hub, topic, &at.to_string());
    }
    assert_eq!(seen(&mut subscription), ["0", "1", "2", "3", "4", "5"]);
}

#[test]
fn a_delivered_event_has_all_fields_of_its_publish() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    let publish = hub.to("a").and_to_client("c").event("note");
    let receipt = certain(publish.publish("1\r\n2".into())).unwrap();
    let Some(Some(Delivery::Event(event))) = subscription.next().now_or_never() else {
        panic!("the subscription has no event");
    };
    assert_eq!(event.data(), "1\n2");
    assert_eq!(event.id(), *receipt.id());
    assert_eq!(event.offset(), receipt.offset());
    assert_eq!(event.event_type().unwrap().as_str(), "note");
    assert_eq!(event.value(), None);
    let topic = Address::Topic(Topic::new("a").unwrap());
    let client = Address::Client(ClientId::new("c").unwrap());
    assert_eq!(event.to(), [client, topic], "the addresses must be sorted");
    let frame = format!("event: note\nid: {}\ndata: 1\ndata: 2\n\n", receipt.id());
    assert_eq!(event.frame().as_bytes(), frame.as_bytes());
}

#[test]
fn threads_can_share_a_hub_and_a_subscription_can_move_between_threads() {
    fn shared<H: Send + Sync + Clone + std::fmt::Debug>() {}
    fn moves<S: Send + Unpin + std::fmt::Debug>() {}
    shared::<Hub<String>>();
    moves::<Subscription<String>>();
    moves::<downlink::hub::Subscribe<String>>();
    moves::<downlink::hub::Publish<String>>();
    shared::<downlink::hub::Receipt>();
}

#[test]
fn the_hub_lists_its_topics_and_clients() {
    let hub = hub();
    say(&hub, "a/1", "x");
    let _reader = open(hub.subscribe().topic("a/2").client("alice"));
    say(&hub, "a/2", "y");
    hub.finish("a/1").unwrap();
    let topics = hub.topic_overviews("a/", None, 10);
    let shown: Vec<_> =
        topics.iter().map(|t| (t.topic.as_str(), t.subscribers, t.events, t.finished)).collect();
    assert_eq!(shown, [("a/1", 0, 1, true), ("a/2", 1, 1, false)]);
    let after = Topic::new("a/1").unwrap();
    assert_eq!(hub.topic_overviews("a/", Some(&after), 1)[0].topic, "a/2");
    let clients = hub.client_overviews(10);
    assert_eq!(clients[0].client.as_ref().unwrap().as_str(), "alice");
    assert_eq!((clients.len(), clients[0].lag, clients[0].selectors), (1, 1, 1));
    let unknown = hub.topic_overview("nobody/was/here").unwrap();
    assert_eq!((unknown.events, unknown.oldest), (0, None));
    assert_eq!(unknown.cursor, hub.cursor());
    assert!(hub.topic_overview("").is_err());
    let oldest = hub.topic_overview("a/2").unwrap().oldest.unwrap();
    assert_eq!(oldest.as_str(), super::id(&hub, 2));
}

#[test]
fn a_subscription_after_a_cursor_gets_every_later_event() {
    let hub = hub();
    say(&hub, "a", "rendered");
    let cursor = hub.cursor();
    say(&hub, "a", "between");
    let mut subscription = open(hub.subscribe().topic("a").resume(&cursor));
    say(&hub, "a", "after");
    assert_eq!(seen(&mut subscription), ["between", "after"]);
}

#[test]
fn client_overviews_begin_with_the_subscription_with_the_largest_lag() {
    let hub = hub();
    let mut quick = open(hub.subscribe().topic("a").client("quick"));
    let _slow = open(hub.subscribe().topic("a").client("slow"));
    let mut quicker = open(hub.subscribe().topic("a").client("quicker"));
    say(&hub, "a", "1");
    seen(&mut quick);
    say(&hub, "a", "2");
    seen(&mut quicker);
    let order = [("slow", 2), ("quick", 1), ("quicker", 0)];
    for count in 0..5 {
        let clients = hub.client_overviews(count);
        let listed: Vec<_> =
            clients.iter().map(|one| (one.client.as_ref().unwrap().as_str(), one.lag)).collect();
        assert_eq!(listed, order[..count.min(3)]);
    }
}
