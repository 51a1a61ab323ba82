# For app/controllers/live_controller.rb: a ticket for the logged-in user, a publish, and a logout that
# ends all streams. `current_user` is the method of your app, or of Devise. In config/routes.rb:
#
#   get "live", to: "live#show"
#   post "orders/:order/pay", to: "live#pay"
#   post "logout", to: "live#leave"

class LiveController < ApplicationController
  before_action :require_user

  # The page fetches this URL, and opens the URL in the answer with EventSource.
  def show
    response.headers["Cache-Control"] = "no-store"
    # Build topics from ids, never from names that users choose: a user named "*" would get a ticket
    # for the topics of all users.
    render json: { url: Downlink.ticket(["users/#{current_user.id}/*"], current_user.id) }
  end

  def pay
    order = params[:order].to_i
    Downlink.publish("users/#{current_user.id}/orders", "paid", { order: order })
    render json: { order: order }
  end

  def leave
    user = current_user.id
    reset_session
    Downlink.revoke(user)
    render json: {}
  end

  private

  def require_user
    render json: { detail: "Log in first." }, status: :unauthorized unless current_user
  end
end
