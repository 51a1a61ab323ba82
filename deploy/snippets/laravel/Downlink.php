<?php
// For app/Services/Downlink.php: publishes events and issues tickets with a downlink server.
// Add to config/services.php:
//   'downlink' => ['url' => env('DOWNLINK_URL'), 'key_file' => env('DOWNLINK_KEY_FILE')],

namespace App\Services;

use Illuminate\Support\Facades\Http;

class Downlink
{
    private const TIMEOUT_S = 5;

    /** Publishes one event. Returns when the event is on the disk of the server. */
    public function publish(string $topic, string $event, array $data): array
    {
        $parameters = [['topic', $topic], ['event', $event]];

        return $this->post('/events', $parameters, json_encode($data, JSON_THROW_ON_ERROR));
    }

    /** Returns the URL with which the page of this user subscribes to these topics. */
    public function ticket(array $topics, string $client): string
    {
        $parameters = array_map(fn ($topic) => ['topic', $topic], $topics);

        return $this->post('/tickets', [...$parameters, ['client', $client]])['url'];
    }

    /** Ends the tickets and streams of a user. First end the session of the user. */
    public function revoke(string $client): void
    {
        $this->post('/revoke', [['client', $client]]);
    }

    private function post(string $path, array $parameters, string $body = ''): array
    {
        // http_build_query would write topic[0]=… for several topics.
        $pairs = array_map(fn ($pair) => $pair[0].'='.rawurlencode($pair[1]), $parameters);
        $key = trim(file_get_contents(config('services.downlink.key_file')));

        return Http::withToken($key)
            ->timeout(self::TIMEOUT_S)
            ->withBody($body, 'application/json')
            ->post(config('services.downlink.url').$path.'?'.implode('&', $pairs))
            ->throw()
            ->json();
    }
}
