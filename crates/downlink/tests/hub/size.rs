//! What an idle subscription costs in memory, as a number that a change has to justify.

use downlink::Subscription;

#[test]
fn a_subscription_stays_small() {
    let bytes = size_of::<Subscription<String>>();
    println!("a subscription: {bytes} bytes");
    assert!(bytes <= 256, "{bytes}");
}
