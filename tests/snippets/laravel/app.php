<?php
// A Laravel app in one file, around the class and the routes in deploy/snippets/laravel. It needs no
// composer: Debian's package php-laravel-framework has all classes. `php -S` runs this file for each
// request.

use Illuminate\Auth\AuthServiceProvider;
use Illuminate\Auth\GenericUser;
use Illuminate\Auth\Middleware\Authenticate;
use Illuminate\Config\Repository;
use Illuminate\Contracts\Auth\Authenticatable;
use Illuminate\Contracts\Auth\UserProvider;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Http\Kernel as KernelContract;
use Illuminate\Cookie\CookieServiceProvider;
use Illuminate\Cookie\Middleware\AddQueuedCookiesToResponse;
use Illuminate\Cookie\Middleware\EncryptCookies;
use Illuminate\Encryption\EncryptionServiceProvider;
use Illuminate\Filesystem\FilesystemServiceProvider;
use Illuminate\Foundation\Application;
use Illuminate\Foundation\Bootstrap\BootProviders;
use Illuminate\Foundation\Exceptions\Handler;
use Illuminate\Foundation\Http\Kernel;
use Illuminate\Foundation\Http\Middleware\VerifyCsrfToken;
use Illuminate\Http\Request;
use Illuminate\Routing\Middleware\SubstituteBindings;
use Illuminate\Session\Middleware\StartSession;
use Illuminate\Session\SessionServiceProvider;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\Facade;
use Illuminate\Support\Facades\Route;
use Illuminate\View\ViewServiceProvider;

require_once 'Illuminate/autoload.php';
require_once 'GuzzleHttp/autoload.php';

const SNIPPETS = __DIR__.'/../../../deploy/snippets/laravel';
require_once SNIPPETS.'/Downlink.php';

class AppKernel extends Kernel
{
    protected $bootstrappers = [BootProviders::class];
    protected $middlewareGroups = ['web' => [
        EncryptCookies::class,
        AddQueuedCookiesToResponse::class,
        StartSession::class,
        VerifyCsrfToken::class,
        SubstituteBindings::class,
    ]];
    protected $routeMiddleware = ['auth' => Authenticate::class];
}

/** Users in memory, in place of a database. */
class Users implements UserProvider
{
    private const NAMES = [1 => 'ada', 2 => 'bob'];

    public function retrieveById($id)
    {
        return isset(self::NAMES[$id]) ? new GenericUser(['id' => (int) $id]) : null;
    }

    public function retrieveByToken($id, $token)
    {
        return null;
    }

    public function updateRememberToken(Authenticatable $user, $token)
    {
    }

    public function retrieveByCredentials(array $credentials)
    {
        return $this->retrieveById(array_search($credentials['name'], self::NAMES));
    }

    public function validateCredentials(Authenticatable $user, array $credentials)
    {
        return $credentials['password'] === 'password of '.self::NAMES[$user->getAuthIdentifier()];
    }
}

$folder = getcwd();
$app = new Application($folder);
$app->instance('config', new Repository([
    'app' => ['key' => str_repeat('k', 32), 'cipher' => 'AES-256-CBC', 'debug' => true],
    'auth' => [
        'defaults' => ['guard' => 'web'],
        'guards' => ['web' => ['driver' => 'session', 'provider' => 'users']],
        'providers' => ['users' => ['driver' => 'memory']],
    ],
    'session' => [
        'driver' => 'file',
        'files' => "$folder/sessions",
        'cookie' => 'app_session',
        'lifetime' => 120,
        'expire_on_close' => false,
        'lottery' => [0, 100],
        'path' => '/',
        'domain' => null,
        'secure' => false,
        'http_only' => true,
        'same_site' => 'lax',
    ],
    'view' => ['paths' => [], 'compiled' => $folder],
    'logging' => ['default' => 'errorlog', 'channels' => ['errorlog' => ['driver' => 'errorlog']]],
    'services' => ['downlink' => [
        'url' => getenv('DOWNLINK_URL'),
        'key_file' => getenv('DOWNLINK_KEY_FILE'),
    ]],
]));
$app->singleton(KernelContract::class, AppKernel::class);
$app->singleton(ExceptionHandler::class, Handler::class);
Facade::setFacadeApplication($app);
foreach ([
    AuthServiceProvider::class,
    CookieServiceProvider::class,
    EncryptionServiceProvider::class,
    FilesystemServiceProvider::class,
    SessionServiceProvider::class,
    // Laravel needs it also for answers in JSON.
    ViewServiceProvider::class,
] as $provider) {
    $app->register($provider);
}
Auth::provider('memory', fn () => new Users());

// The session's folder exists in a real project.
is_dir("$folder/sessions") || mkdir("$folder/sessions", 0700, true);

// The middleware groups are known to the router once the kernel exists.
$kernel = $app->make(KernelContract::class);
Route::middleware('web')->group(function () {
    Route::get('/', fn () => '<meta name="csrf-token" content="'.csrf_token().'">');
    Route::post('/login', function (Request $request) {
        if (! Auth::attempt($request->only('name', 'password'))) {
            return response()->json([], 401);
        }
        $request->session()->regenerate();

        return response()->json((object) []);
    });
    require SNIPPETS.'/routes.php';
});

$request = Request::capture();
$response = $kernel->handle($request);
$response->send();
$kernel->terminate($request, $response);
