# A Rails app in one file, around the controller in deploy/snippets/rails.

require "rails"
require "action_controller/railtie"

SNIPPETS = File.expand_path("../../../deploy/snippets/rails", __dir__)

class App < Rails::Application
  config.root = Dir.pwd
  config.load_defaults 6.1
  config.eager_load = false
  config.consider_all_requests_local = true
  config.hosts << "127.0.0.1"
  config.secret_key_base = "a secret of this test, which has to be rather long"
  config.session_store :cookie_store, key: "_app"
  config.logger = Logger.new($stderr)
  config.log_level = :warn
end
App.initialize!

User = Struct.new(:id, :name)
USERS = [User.new(1, "ada"), User.new(2, "bob")].freeze

class ApplicationController < ActionController::Base
  protect_from_forgery with: :exception

  def current_user
    @current_user ||= USERS.find { |user| user.id == session[:user] }
  end
end

class LoginController < ApplicationController
  def page
    render html: helpers.csrf_meta_tags
  end

  def enter
    user = USERS.find { |found| found.name == params[:name] }
    return head :unauthorized unless user && params[:password] == "password of #{user.name}"

    reset_session
    session[:user] = user.id
    render json: {}
  end
end

require "#{SNIPPETS}/downlink"
require "#{SNIPPETS}/live_controller"

App.routes.draw do
  root to: "login#page"
  post "login", to: "login#enter"
  get "live", to: "live#show"
  post "orders/:order/pay", to: "live#pay"
  post "logout", to: "live#leave"
end

run App
