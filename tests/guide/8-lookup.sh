curl -X POST "$KALTURA_SERVICE_URL/service/shortlink_shortlink/action/list" \
-d "ks=$KALTURA_KS" \
-d "format=1" \
-d "filter[systemNameEqual]=CAMPAIGN-Q4-2025" \
-d "filter[statusEqual]=2"
