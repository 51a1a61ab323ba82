<?php
// For routes/web.php: a ticket for the logged-in user, a publish, and a logout that ends all streams.

use App\Services\Downlink;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Route;

Route::middleware('auth')->group(function () {
    // The page fetches this URL, and opens the URL in the answer with EventSource.
    Route::get('/live', function (Request $request, Downlink $downlink) {
        $user = (string) $request->user()->getAuthIdentifier();
        // Build topics from ids, never from names that users choose: a user named "*" would get a
        // ticket for the topics of all users.
        $url = $downlink->ticket(["users/$user/*"], $user);

        return response()->json(['url' => $url])->header('Cache-Control', 'no-store');
    });

    Route::post('/orders/{order}/pay', function (Request $request, Downlink $downlink, int $order) {
        $user = $request->user()->getAuthIdentifier();
        $downlink->publish("users/$user/orders", 'paid', ['order' => $order]);

        return ['order' => $order];
    });

    Route::post('/logout', function (Request $request, Downlink $downlink) {
        $user = (string) $request->user()->getAuthIdentifier();
        Auth::logout();
        $request->session()->invalidate();
        $downlink->revoke($user);

        return response()->json((object) []);
    });
});
